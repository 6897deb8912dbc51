"""HTTP cameras: frame source, parser of MJPEG, authentication, and connections that accept faulty headers."""
