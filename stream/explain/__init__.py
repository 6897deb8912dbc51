"""Explains the life of one frame or alert from the log, and tests rules over stored results."""
