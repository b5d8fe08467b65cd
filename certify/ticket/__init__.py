"""Tickets: schema, making, transfer and merging of rows, adapters, verification of served rows."""
