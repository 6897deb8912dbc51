"""Sensors of a site: their sources, and the way of a reading into the spool."""
