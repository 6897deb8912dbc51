"""Rules that traffic teams use, one module each."""
