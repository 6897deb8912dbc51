"""RTSP streams: the frame source, the clock of a stream, and tracking of damage after packet loss."""
