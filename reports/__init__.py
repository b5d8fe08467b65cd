"""Renderers: what commands found out, for terminals, pages, other programs. They decide nothing."""
