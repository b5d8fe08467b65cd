"""What evidence shows: one module per kind of claim, computed in exact arithmetic."""
