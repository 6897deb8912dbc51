"""Redaction of pictures in the agent, before the agent encodes the pictures."""
