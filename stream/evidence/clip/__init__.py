"""Clips of alerts, made from the frames in the log."""
