"""Commands that use tickets: transfer, apply, export, import, verify."""
