"""Sensors of a site: connections to devices, and code that numbers readings and stores them in the spool."""
