"""Clocks and deadlines.

Deadlines use the monotonic clock, because the wall clock may jump; timestamps use the wall clock.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Protocol

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def unix_ns(at: datetime, zone: tzinfo = UTC) -> int:
    """Return a time as Unix time in ns, exact to the microsecond; negative before 1970.

    A time without an offset is in the time zone ``zone``.
    """
    return ((at if at.tzinfo else at.replace(tzinfo=zone)) - _EPOCH) // timedelta(microseconds=1) * 1000


class Clock(Protocol):
    """A source of time. The methods do not block, and any thread may call them."""

    def monotonic(self) -> float:
        """Return seconds on a clock that never goes back."""

    def now_ns(self) -> int:
        """Return Unix time in ns."""


class SystemClock:
    """The computer's clock."""

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
        """Return the seconds by which the clock was advanced in total."""
        return self.seconds

    def now_ns(self) -> int:
        """Return the Unix time in ns that this clock shows."""
        return self.started_ns + round(self.seconds * 1e9)

    def advance(self, seconds: float) -> None:
        """Advance the clock."""
        self.seconds += seconds


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment on the monotonic clock.

    A function passes its deadline to the functions it calls, so that all calls together keep one time limit.
    """

    at: float
    clock: Clock = field(default_factory=SystemClock)

    @classmethod
    def after(cls, seconds: float, clock: Clock | None = None) -> Deadline:
        """Return a deadline that is ``seconds`` from now."""
        clock = clock or SystemClock()
        return cls(clock.monotonic() + seconds, clock)

    @property
    def left(self) -> float:
        """The seconds until the deadline, 0 after the deadline."""
        return max(0.0, self.at - self.clock.monotonic())

    @property
    def passed(self) -> bool:
        """Whether the deadline has passed."""
        return self.left == 0.0
