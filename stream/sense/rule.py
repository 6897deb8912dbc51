"""Bases of sensor rules: their settings, and the state that one keeps from window to window. Pure."""

from __future__ import annotations

import abc
from typing import ClassVar, Protocol

from pydantic import Field

from ingest.contract.records.base import Name
from ingest.site import SensorConfig
from stream.rules import Happening, Rule
from stream.sense.windows import ReadingWindow

TAIL_WINDOWS = 3
"""Windows that a new owner reads back: the open one, and those that say whether a bound is exceeded."""


class SensorRule(Rule):
    """Base of the rules over one sensor's windows of ``window_s`` seconds."""

    REFERS_TO: ClassVar[tuple[str, ...]] = ("sensor",)

    sensor: Name
    window_s: float = Field(default=5.0, gt=0.0)
    min_readings: int = Field(default=3, ge=1)
    """A window with fewer readings is skipped."""

    def tail_s(self, interval_s: float) -> float:
        """Return the past readings, in seconds, from which a new owner of the partition rebuilds the rule's state.

        ``interval_s`` is the time between two readings of the sensor, 0 if unknown.
        """
        return TAIL_WINDOWS * max(self.window_s, (self.min_readings + 1) * interval_s)

    @abc.abstractmethod
    def watch(self, sensor: str, config: SensorConfig | None) -> WindowWatch:
        """Return a new state. ``config`` is None for a sensor that the site does not have."""


class WindowWatch(Protocol):
    """State of one sensor rule."""

    def step(self, window: ReadingWindow) -> Happening | None:
        """Take the next closed window with enough readings, and return a happening that begins with it."""
