"""Commands that decide: check, issue, explain, power, schema."""
