"""Rule ``threshold``: the mean of a sensor's readings in a window is above or below a value. Pure."""

from __future__ import annotations

from typing import ClassVar, Literal

from ingest.site import SensorConfig
from stream.rules import Happening
from stream.sense.bounds import BoundedRule, BoundedWatch
from stream.sense.rule import WindowRule, WindowWatch
from stream.sense.windows import ReadingWindow


class ThresholdRule(BoundedRule, WindowRule):
    """Report once when a window's mean leaves the bounds.

    Report a second time only after the mean of a window was within the bounds by at least ``hysteresis``.
    """

    EVENT_TYPE: ClassVar[str] = "sightline.reading.threshold"
    TAKES_COLUMNS: ClassVar[bool] = True

    type: Literal["threshold"] = "threshold"

    def watch(self, sensor: str, config: SensorConfig | None) -> ThresholdWatch:
        """Create the state of the rule for one sensor."""
        return ThresholdWatch(self, sensor, config)


class ThresholdWatch(BoundedWatch, WindowWatch):
    """The state of the rule for one sensor."""

    def step(self, window: ReadingWindow) -> Happening | None:
        """Process the next window, and return the situation to report if a breach of the bounds begins with this
        window."""
        return self.breach(window.mean)
