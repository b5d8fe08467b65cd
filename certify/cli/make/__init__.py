"""Commands that make tickets: scan, find."""
