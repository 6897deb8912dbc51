"""Comparison of a candidate model with the served model."""
