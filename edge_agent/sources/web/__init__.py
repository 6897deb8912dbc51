"""HTTP cameras: the frame source, the parser of MJPEG, logins, and a connection that accepts faulty headers."""
