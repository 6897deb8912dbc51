"""Gate that decides which frames are worth sending."""
