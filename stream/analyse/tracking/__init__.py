"""Tracking: the tracker, track time, stationary tracks, and duplicate detections of one object."""
