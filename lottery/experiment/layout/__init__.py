"""Build the graph of steps from a plan."""
