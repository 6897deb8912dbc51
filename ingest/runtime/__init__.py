"""Foundations of every process: clock, logs, event loop, back-off, heartbeat and the shell of a service."""
