"""When a lane's intake waits. Pure.

Each lane has limits of its own, so that a backlog never keeps live batches from being read; that live ones are also
classified first is the scheduler's business. What is over a limit goes on once half of it is gone.
"""

from __future__ import annotations

from dataclasses import dataclass

LIVE_ROWS_PER_INSTANCE = 64
"""Rows that wait for an engine: two large batches per engine keep it busy."""
LIVE_JOBS = 512
LIVE_BYTES = 96 * 1024 * 1024
"""Jobs that are classified are kept, with their pixels, until they are written."""
LATE_SHARE = 4
"""The late lane may hold a fourth of that: enough to be busy by itself, little enough to be in nobody's way."""


@dataclass(frozen=True, slots=True)
class LaneLoad:
    """What one lane has in flight: rows that wait for an engine, batches that are not written, and their bytes."""

    rows: int = 0
    jobs: int = 0
    bytes: int = 0


class LaneThrottle:
    """Judges one lane."""

    def __init__(self, instances: int, *, late: bool) -> None:
        share = LATE_SHARE if late else 1
        self._limits = LaneLoad(LIVE_ROWS_PER_INSTANCE * instances // share, LIVE_JOBS // share, LIVE_BYTES // share)
        self._full = False

    def full(self, load: LaneLoad) -> bool:
        """Tell whether a lane with this load must wait."""
        divide, limits = 2 if self._full else 1, self._limits
        self._full = (
            load.rows > limits.rows // divide
            or load.jobs > limits.jobs // divide
            or load.bytes > limits.bytes // divide
        )
        return self._full
