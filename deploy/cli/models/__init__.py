"""`sightline models`: add, inspect, test and measure models."""
