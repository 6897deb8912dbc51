"""What is on its way: which rows, how many bytes, and when there is room for more. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class InFlightWindow:
    """Rows in flight by id, with their sizes; late ones are counted apart, and have a share of the room."""

    max_bytes: int
    max_late_bytes: int
    _live: dict[int, int] = field(default_factory=dict)
    _late: dict[int, int] = field(default_factory=dict)

    def add(self, row_id: int, size: int, *, late: bool) -> None:
        """Note that a row was handed to the link."""
        (self._late if late else self._live)[row_id] = size

    def done(self, row_id: int) -> None:
        """Note that a row was acknowledged, or failed."""
        self._live.pop(row_id, None)
        self._late.pop(row_id, None)

    @property
    def room(self) -> bool:
        """Tell whether a live row may be sent."""
        return sum(self._live.values()) + sum(self._late.values()) < self.max_bytes

    @property
    def late_room(self) -> bool:
        """Tell whether a late row may be sent."""
        return self.room and sum(self._late.values()) < self.max_late_bytes

    def __len__(self) -> int:
        return len(self._live) + len(self._late)


LIVE_RECENT_S = 2.0
"""No live frame for so long: there is nobody whom a backlog could disturb."""


class BacklogPace:
    """How fast the backlog may go while live frames come: so many bytes a second, averaged over one. 0 for any."""

    def __init__(self, bytes_per_s: int) -> None:
        self._rate = bytes_per_s
        self._tokens = float(bytes_per_s)
        self._at_s = 0.0
        self._live_s: float | None = None

    def live(self, now_s: float) -> None:
        """Note that a live frame was sent."""
        self._live_s = now_s

    def spend(self, size: int) -> None:
        """Note that so many bytes of backlog were sent."""
        self._tokens -= size

    def wait_s(self, now_s: float) -> float:
        """Return in how many seconds backlog may be sent; 0 for now."""
        self._tokens = min(float(self._rate), self._tokens + (now_s - self._at_s) * self._rate)
        self._at_s = now_s
        alone = self._live_s is None or now_s - self._live_s > LIVE_RECENT_S
        if not self._rate or alone or self._tokens > 0:
            return 0.0
        return -self._tokens / self._rate
