"""From a plan to its graph of steps."""
