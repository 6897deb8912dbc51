"""Limits of the sender: bytes in flight, the rate of late frames (the backlog) while live frames are sent, and bytes
in a batch of Kafka records.

Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class InFlightWindow:
    """Sizes in bytes of the rows in flight, by row id.

    Late frames (the backlog) may use only ``max_late_bytes`` of the limit ``max_bytes``.
    """

    max_bytes: int
    max_late_bytes: int
    _live: dict[int, int] = field(default_factory=dict)
    _late: dict[int, int] = field(default_factory=dict)
    _live_bytes: int = 0
    _late_bytes: int = 0

    def add(self, row_id: int, size: int, *, late: bool) -> None:
        """Add a row that was handed to the link."""
        self.done(row_id)
        if late:
            self._late[row_id] = size
            self._late_bytes += size
        else:
            self._live[row_id] = size
            self._live_bytes += size

    def done(self, row_id: int) -> None:
        """Remove a row that was acknowledged, or that failed."""
        self._live_bytes -= self._live.pop(row_id, 0)
        self._late_bytes -= self._late.pop(row_id, 0)

    @property
    def free_bytes(self) -> int:
        """Number of bytes that may still be sent before the limit on bytes in flight is reached. The number is
        negative if the last row has exceeded the limit."""
        return self.max_bytes - self._live_bytes - self._late_bytes

    @property
    def room(self) -> bool:
        """Return whether the limit on bytes in flight allows another row."""
        return self.free_bytes > 0

    @property
    def late_room(self) -> bool:
        """Return whether the limits on bytes in flight allow another late frame."""
        return self.room and self._late_bytes < self.max_late_bytes

    def __len__(self) -> int:
        return len(self._live) + len(self._late)


LIVE_RECENT_S = 2.0
"""If no live frame was sent for this time in seconds, the rate of the backlog is no longer limited."""


class BacklogPace:
    """Token bucket that limits the backlog to ``bytes_per_s`` while live frames are sent.

    The bucket holds the bytes of one second. A rate of 0 bytes per second means no limit.
    """

    def __init__(self, bytes_per_s: int) -> None:
        self._rate = bytes_per_s
        self._tokens = float(bytes_per_s)
        self._at_s = 0.0
        self._live_s: float | None = None

    def live(self, now_s: float) -> None:
        """Record that a live frame was sent."""
        self._live_s = now_s

    def spend(self, size: int) -> None:
        """Record that ``size`` bytes of backlog were sent."""
        self._tokens -= size

    def wait_s(self, now_s: float) -> float:
        """Return the time in seconds until the next late frame may be sent; 0 means now."""
        self._tokens = min(float(self._rate), self._tokens + (now_s - self._at_s) * self._rate)
        self._at_s = now_s
        no_live = self._live_s is None or now_s - self._live_s > LIVE_RECENT_S
        if not self._rate or no_live or self._tokens > 0:
            return 0.0
        return -self._tokens / self._rate


MIN_BATCH_BYTES = 16 * 1024
"""Batch size on a slow link, in bytes. A record that is larger than ``MIN_BATCH_BYTES`` is sent in a batch of its
own."""
MAX_BATCH_BYTES = 256 * 1024
"""Batch size on a fast link, in bytes. A frame of 40 kB in a batch of 256 KiB takes three quarters of the processor
time that it takes in a batch of its own. Batches of more than ``MAX_BATCH_BYTES`` save no more time."""
BATCH_S = 0.05
"""Time in seconds in which the link sends one batch. A request has one batch for each partition."""
_MEASURE_S = 0.1
"""Time in seconds over which the rate of the link is measured."""


class BatchLimit:
    """Maximum size in bytes of a batch of Kafka records, from the rate at which Kafka acknowledges records.

    On a slow link, a large request would take longer than the sender waits for an acknowledgement. ``max_bytes``
    limits the size on a fast link.
    """

    def __init__(self, now_s: float, max_bytes: int = MAX_BATCH_BYTES) -> None:
        self._since_s, self._acked_bytes, self._max_bytes = now_s, 0, max_bytes
        self.bytes = MIN_BATCH_BYTES

    def acked(self, size: int, now_s: float) -> None:
        """Record that Kafka has acknowledged a record of ``size`` bytes."""
        self._acked_bytes += size
        passed_s = now_s - self._since_s
        if passed_s >= _MEASURE_S:
            fitting = round(BATCH_S * self._acked_bytes / passed_s)
            self.bytes = max(MIN_BATCH_BYTES, min(fitting, self._max_bytes))
            self._since_s, self._acked_bytes = now_s, 0
