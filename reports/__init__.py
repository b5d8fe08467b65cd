"""Render a check report as terminal text or JSON. Renderers decide nothing."""
