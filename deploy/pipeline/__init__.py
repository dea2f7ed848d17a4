"""The record of what ran, and what follows from it; the model that runs."""
