"""Commands that do one task and exit, instead of running a service."""
