"""Rules that join a camera with a sensor: their base class, and the join of both in event time."""
