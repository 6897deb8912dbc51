"""Foundations of every process: clock, logs, event loop, back-off, heartbeat and the common frame of a service."""
