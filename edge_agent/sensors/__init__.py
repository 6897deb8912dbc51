"""Sensors of a site: their sources, and the path of a reading into the spool."""
