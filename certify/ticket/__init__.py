"""The ticket: its schema, making one, transferring and merging its rows, adapters, what is served."""
