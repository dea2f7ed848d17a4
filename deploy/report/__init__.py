"""The verdict, from the logits to what a person or a program reads."""
