"""Encoding of redacted pictures within a byte budget."""
