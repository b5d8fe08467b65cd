"""Generation, forced decoding and evidence, in resumable shards."""
