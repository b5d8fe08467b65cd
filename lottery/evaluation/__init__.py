"""Generate, decode along given outputs, and write evidence, in resumable part files."""
