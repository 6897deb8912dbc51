"""What is on the wire: identity, codec, headers, topics, records."""
