"""Embedding tables and tokenizers, read as hostile input: one Table, one Vocabulary, digests."""
