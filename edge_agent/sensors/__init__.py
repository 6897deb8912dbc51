"""The same path for numbers."""
