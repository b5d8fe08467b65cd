"""Input text: aligned pairs, plain files, unrelated text, scores, lists of used sentences."""
