"""The command ``certify``: a table of commands by name, and what they share."""
