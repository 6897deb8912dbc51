"""Base classes of sensor rules: the settings of a rule, and the state that a rule keeps between windows. Pure."""

from __future__ import annotations

import abc
from typing import ClassVar, Protocol

from pydantic import Field

from ingest.contract.records.base import Name
from ingest.site import SensorConfig
from ingest.site.entry import PositiveSeconds
from stream.rules import Happening, Rule
from stream.sense.windows import ReadingWindow

TAIL_WINDOWS = 3
"""Number of windows that a new owner of a partition reads back: the open window, and two closed windows that show
whether a bound is exceeded."""


class SensorRule(Rule):
    """Base of the rules over one sensor's windows of ``window_s`` seconds."""

    REFERS_TO: ClassVar[tuple[str, ...]] = ("sensor",)

    sensor: Name
    window_s: PositiveSeconds = 5.0
    min_readings: int = Field(default=3, ge=1)
    """Minimum number of readings in a window. The rule skips a window with fewer readings than this number."""

    def tail_s(self, interval_s: float) -> float:
        """Return the length in seconds of the history from which a new owner of the partition rebuilds the rule's
        state.

        ``interval_s`` is the time between two readings of the sensor, 0 if unknown.
        """
        return TAIL_WINDOWS * max(self.window_s, (self.min_readings + 1) * interval_s)

    @abc.abstractmethod
    def watch(self, sensor: str, config: SensorConfig | None) -> WindowWatch:
        """Create the state of the rule for one sensor. ``config`` is None for a sensor that the site does not
        have."""


class WindowWatch(Protocol):
    """State of one sensor rule."""

    def step(self, window: ReadingWindow) -> Happening | None:
        """Process the next closed window that has enough readings, and return the happening that begins in this
        window, or None."""
