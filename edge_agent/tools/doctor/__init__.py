"""Checks of an agent's host, link, cameras and sensors before the agent runs unattended."""
