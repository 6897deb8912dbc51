"""Capture of one camera: the supervisor, the capture process, and the checks of the camera's view."""
