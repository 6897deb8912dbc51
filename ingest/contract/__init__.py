"""The wire contract: identity, codec, headers, topics, records."""
