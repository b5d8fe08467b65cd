"""Tuning from settings to files: recipes, arms, the training loop, resumable state."""
