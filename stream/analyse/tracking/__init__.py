"""Tracks: the tracker, the time that tracks live in, stationary tracks, and picture scale."""
