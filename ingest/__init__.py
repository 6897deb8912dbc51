"""The contract: what is on the wire, where it goes, and what became of it."""
