"""Measurements of the engine node by itself: its speed, its latency under open load, and kills of its process."""
