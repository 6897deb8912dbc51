"""Checks of an agent's host, link, cameras and sensors before it is left alone."""
