"""Capture of one camera: the supervisor, the capture process, and the tamper detection."""
