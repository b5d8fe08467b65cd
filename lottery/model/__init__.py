"""Models from transformers: loading, trainable rows, row swaps, loss, devices."""
