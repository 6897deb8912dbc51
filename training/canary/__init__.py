"""Watch a canary, and roll it back when its live skill falls below its limits."""
