"""The procedures of the steps, by kind."""
