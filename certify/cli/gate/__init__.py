"""Commands around the decision: issue, check, explain, power, schema."""
