"""The guide's way, step by step as its reader does it, for the comparisons; nothing of the kit uses it."""
