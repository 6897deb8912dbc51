"""The wire contract between the stages: frame identity, encoding, headers, topics and records."""
