"""Commands for the people who review incidents."""
