"""Tracking of objects: the tracker, the clock of tracks, stationary tracks, and the removal of duplicate
detections."""
