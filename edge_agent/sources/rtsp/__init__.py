"""RTSP streams: the source, its clock, sender reports, and damage after packet loss."""
