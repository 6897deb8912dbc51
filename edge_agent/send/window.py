"""What is on its way: which rows, how many bytes, and when there is room for more. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["MAX_BYTES", "MAX_LATE_BYTES", "Window"]

MAX_BYTES = 4 * 1024 * 1024
"""In flight at once: a second of a 30 Mbit/s link. All of it is repeated when the link fails."""
MAX_LATE_BYTES = 1024 * 1024
"""Of which the late lane may have this much, so that a live frame never waits behind more than that of backlog."""


@dataclass
class Window:
    """Rows in flight by id, with their sizes; late ones are counted apart."""

    _live: dict[int, int] = field(default_factory=dict)
    _late: dict[int, int] = field(default_factory=dict)

    def add(self, row_id: int, size: int, *, late: bool) -> None:
        """Note that a row was handed to the producer."""
        (self._late if late else self._live)[row_id] = size

    def done(self, row_id: int) -> None:
        """Note that a row was acknowledged, or failed."""
        self._live.pop(row_id, None)
        self._late.pop(row_id, None)

    @property
    def room(self) -> bool:
        """Tell whether a live row may be sent."""
        return sum(self._live.values()) + sum(self._late.values()) < MAX_BYTES

    @property
    def late_room(self) -> bool:
        """Tell whether a late row may be sent."""
        return self.room and sum(self._late.values()) < MAX_LATE_BYTES

    def __len__(self) -> int:
        return len(self._live) + len(self._late)
