"""Measures of a camera per minute: counts, occupancy, dwell, speeds and flows."""
