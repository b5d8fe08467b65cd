"""Cached, resumable steps: the graph, its cache, its journal, and what steps share while they run."""
