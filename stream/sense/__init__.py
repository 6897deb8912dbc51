"""Readings to events: clean, windows, thresholds."""
