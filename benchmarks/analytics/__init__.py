"""Accuracy of tracking and rules, on clips counted by eye and on simulated scenes."""
