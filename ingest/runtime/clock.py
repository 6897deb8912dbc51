"""Clocks and deadlines. Deadlines use the monotonic clock; wall time is for timestamps only."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Protocol


class Clock(Protocol):
    """A source of time. Neither method blocks; both may be called from any thread."""

    def monotonic(self) -> float:
        """Return seconds on a clock that never goes back."""

    def now_ns(self) -> int:
        """Return Unix time in ns."""


class SystemClock:
    """The clock of the machine."""

    def monotonic(self) -> float:
        """Return seconds on a clock that never goes back."""
        return time.monotonic()

    def now_ns(self) -> int:
        """Return Unix time in ns."""
        return time.time_ns()


@dataclass
class ManualClock:
    """A clock that moves only when ``advance`` is called. Tests and replays use this clock."""

    seconds: float = 0.0
    started_ns: int = 1_700_000_000_000_000_000

    def monotonic(self) -> float:
        """Return the seconds by which the clock was advanced."""
        return self.seconds

    def now_ns(self) -> int:
        """Return the clock's Unix time in ns."""
        return self.started_ns + round(self.seconds * 1e9)

    def advance(self, seconds: float) -> None:
        """Advance the clock."""
        self.seconds += seconds


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment on the monotonic clock.

    A chain of calls passes one deadline down, so that all calls together keep the time limit.
    """

    at: float
    clock: Clock = field(default_factory=SystemClock)

    @classmethod
    def after(cls, seconds: float, clock: Clock | None = None) -> Deadline:
        """Return the deadline ``seconds`` from now."""
        clock = clock or SystemClock()
        return cls(clock.monotonic() + seconds, clock)

    @property
    def left(self) -> float:
        """Return the seconds left, never negative."""
        return max(0.0, self.at - self.clock.monotonic())

    @property
    def passed(self) -> bool:
        """Return whether the deadline has passed."""
        return self.left == 0.0
