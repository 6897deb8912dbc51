"""RTSP streams: the source, its clock, and damage after packet loss."""
