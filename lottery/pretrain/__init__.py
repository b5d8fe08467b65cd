"""A small LLaMA from scratch, by a plan."""
