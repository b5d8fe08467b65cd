"""Experiment plans: their form, the arms and tickets that follow, and their cost."""
