"""Benchmarks of the console beside the whole stack: outages during alerts, live viewers, latency to the page."""
