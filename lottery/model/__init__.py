"""Models through transformers: loading, trainable rows, rows swapped in and out, loss, devices."""
