"""Pretrain a small LLaMA from scratch by a plan."""
