"""Adapters: tickets as such, and what base and adapter serve together."""
