"""Commands for people and scripts, which do not run a service."""
