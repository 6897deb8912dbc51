"""Redaction of pictures on the camera side, before they are encoded."""
