"""Programs of the peers, each of which runs in its own environment."""

MAX_FETCH_WAIT_MS = 100
LINGER_MS = 2
"""Settings of the clients that Sightline's clients have as well (``ingest/kafka/settings.py``)."""
MOTION = "motion"
"""Header of a frame that a peer gets: the bounding boxes of motion as JSON."""
