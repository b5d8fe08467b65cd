"""Choose rows from a scan: selection rules, token counts, null tickets."""
