"""Attacks on the theorems: enumeration, SMT, counterexamples, tightness."""
