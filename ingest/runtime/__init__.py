"""Code that all processes share: clock, logs, event loop, back-off, heartbeat, start and stop of a service."""
