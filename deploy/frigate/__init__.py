"""Conversion of a Frigate configuration into a site file."""
