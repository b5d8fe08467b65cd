"""Experiments: run a plan from a base model to tickets and evidence, in cached steps."""
