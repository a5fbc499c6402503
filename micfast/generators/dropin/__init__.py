"""Torch modules as users have them: their parts, their weights, and whether they draw alike."""
