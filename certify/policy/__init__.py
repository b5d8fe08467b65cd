"""Which checks and claims a verdict rests on, what each outcome means, and the shipped policies."""
