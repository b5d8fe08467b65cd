"""What an experiment plan may say, and what it will cost."""
