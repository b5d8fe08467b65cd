"""What a ticket is compared with: random shifts, opportunity, chance overlap."""
