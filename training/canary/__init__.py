"""Watch the canary version of a model, and roll it back when its live skill falls below its limits."""
