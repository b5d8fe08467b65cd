"""From a ticket file to verdicts: integrity, re-checking, evidence, issuing, watching, choosing."""
