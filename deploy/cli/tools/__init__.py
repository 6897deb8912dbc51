"""Commands that people and scripts call."""
