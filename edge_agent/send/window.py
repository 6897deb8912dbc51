"""Limits of the sender: bytes in flight, and the rate of late frames (the backlog) while live frames are sent.

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

    def add(self, row_id: int, size: int, *, late: bool) -> None:
        """Add a row that was handed to the link."""
        (self._late if late else self._live)[row_id] = size

    def done(self, row_id: int) -> None:
        """Remove a row that was acknowledged, or that failed."""
        self._live.pop(row_id, None)
        self._late.pop(row_id, None)

    @property
    def room(self) -> bool:
        """Return whether the limit on bytes in flight allows another row."""
        return sum(self._live.values()) + sum(self._late.values()) < self.max_bytes

    @property
    def late_room(self) -> bool:
        """Return whether the limits on bytes in flight allow another late frame."""
        return self.room and sum(self._late.values()) < self.max_late_bytes

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
