"""Foundations: errors, exact arithmetic, canonical JSON and atomic files, records, outcomes."""
