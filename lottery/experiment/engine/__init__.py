"""Cached steps that resume: the graph, its cache and its journal."""
