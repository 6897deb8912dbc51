"""Storage of evidence: stores, names, clips, retention, legal holds and erasure."""
