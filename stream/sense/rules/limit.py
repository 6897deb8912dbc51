"""Rule ``limit``: a single reading of a sensor is above or below a value. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from ingest.site import SensorConfig
from stream.sense.bounds import BoundedRule, BoundedWatch
from stream.sense.rule import ReadingHappening, ReadingRule, ReadingWatch
from stream.sense.windows import Column

TAIL_READINGS = 30
"""Number of readings that a new owner of a partition reads back. They show whether a breach of the bounds lasts,
unless all of them are within the bounds by less than the hysteresis."""
MIN_TAIL_S = 30.0
"""Minimum length in seconds of the history that is read back, for a sensor whose rate is unknown."""


class LimitRule(BoundedRule, ReadingRule):
    """Report once when a reading leaves the bounds, at the moment when the reading arrives.

    Report a second time only after a reading was within the bounds by at least ``hysteresis``. Readings are judged in
    the order of their arrival.
    """

    EVENT_TYPE: ClassVar[str] = "sightline.reading.limit"
    TAKES_COLUMNS: ClassVar[bool] = True

    type: Literal["limit"] = "limit"

    def tail_s(self, interval_s: float) -> float:
        """Return the length in seconds of the history that shows whether a breach lasts."""
        return max(MIN_TAIL_S, TAIL_READINGS * interval_s)

    def watch(self, sensor: str, config: SensorConfig | None) -> LimitWatch:
        """Create the state of the rule for one sensor."""
        return LimitWatch(self, sensor, config)


class LimitWatch(BoundedWatch, ReadingWatch):
    """The state of the rule for one sensor."""

    def step(self, column: Column) -> Iterator[ReadingHappening]:
        """Process the next readings, and return the breaches of the bounds that begin with them.

        A column of readings within the bounds is processed as a whole.
        """
        rule, values = self._rule, column.values
        if not self._outside and not rule.exceeds(min(values)) and not rule.exceeds(max(values)):
            return
        for at_ns, value in zip(*column, strict=True):
            if happening := self.breach(value):
                yield ReadingHappening(happening, at_ns, at_ns)
