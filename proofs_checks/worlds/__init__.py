"""Synthetic evidence, tickets and policies whose truth is known."""
