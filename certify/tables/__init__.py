"""Embedding tables, tokenizers and their digests, read as hostile input."""
