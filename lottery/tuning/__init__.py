"""Tuning from settings to files: recipes, arms, the loop, resumable state."""
