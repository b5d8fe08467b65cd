"""Controls for a ticket: random shifts, opportunity, chance overlap."""
