"""Kills of an agent, and the check whether any frame was lost that the spool had committed."""
