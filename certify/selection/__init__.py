"""From a scan to chosen rows: selection rules, token counts, null tickets."""
