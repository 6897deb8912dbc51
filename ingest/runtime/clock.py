"""The clock as a seam: deadlines run on the monotonic clock, wall time is for timestamps only."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Protocol


class Clock(Protocol):
    """Tells the time. Neither method blocks; both may be called from any thread."""

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        ...

    def now_ns(self) -> int:
        """Return Unix time in ns."""
        ...


class SystemClock:
    """The machine's own clock."""

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return time.monotonic()

    def now_ns(self) -> int:
        """Return Unix time in ns."""
        return time.time_ns()


@dataclass
class ManualClock:
    """A clock that moves when it is told to. For tests and for replays."""

    seconds: float = 0.0
    started_ns: int = 1_700_000_000_000_000_000

    def monotonic(self) -> float:
        """Return the seconds it was moved on by."""
        return self.seconds

    def now_ns(self) -> int:
        """Return its Unix time in ns."""
        return self.started_ns + round(self.seconds * 1e9)

    def advance(self, seconds: float) -> None:
        """Move on."""
        self.seconds += seconds


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment on the monotonic clock, passed down a chain of calls so that all of them share it."""

    at: float
    clock: Clock = field(default_factory=SystemClock)

    @classmethod
    def after(cls, seconds: float, clock: Clock | None = None) -> Deadline:
        """Return the deadline that many seconds from now."""
        clock = clock or SystemClock()
        return cls(clock.monotonic() + seconds, clock)

    @property
    def left(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self.at - self.clock.monotonic())

    @property
    def passed(self) -> bool:
        """Tell whether it has passed."""
        return self.left == 0.0
