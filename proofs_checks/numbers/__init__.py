"""Attacks on numbers: exact laws, rates, dominance."""
