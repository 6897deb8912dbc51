"""Rules that security teams use, one module each."""
