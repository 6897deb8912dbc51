"""Rule ``gap``: a sensor has sent no reading for a given time. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

import numpy as np

from ingest.site import SensorConfig
from ingest.site.entry import PositiveSeconds
from stream.rules import Happening
from stream.sense.rule import ReadingHappening, ReadingRule, ReadingWatch
from stream.sense.windows import Column


class GapRule(ReadingRule):
    """Report once when no usable reading of a sensor has come for ``for_s``.

    A gap is reported while it lasts, or with the first reading after it. If a gap reaches the length ``for_s``
    outside of the rule's hours or during its cooldown, the gap is never reported. Readings that are dropped, for
    example because they are out of range, end no gap.
    """

    EVENT_TYPE: ClassVar[str] = "sightline.sensor.gap"
    TAKES_COLUMNS: ClassVar[bool] = True

    type: Literal["gap"] = "gap"
    for_s: PositiveSeconds = 60.0

    def tail_s(self, interval_s: float) -> float:
        """Return the length in seconds of the history that the rule needs: the last reading before a gap, even if a
        worker is down during half of the gap."""
        return 2 * max(self.for_s, interval_s)

    def watch(self, sensor: str, config: SensorConfig | None) -> GapWatch:
        """Create the state of the rule for one sensor."""
        return GapWatch(self, sensor)


class GapWatch(ReadingWatch):
    """State of the rule: the time of the last reading."""

    def __init__(self, rule: GapRule, sensor: str) -> None:
        self._sensor, self._for_s = sensor, rule.for_s
        self._for_ns = round(rule.for_s * 1e9)
        self._last_ns: int | None = None
        self._reported = False

    def step(self, column: Column) -> Iterator[ReadingHappening]:
        """Process the next readings, and return the gaps before and between them that are not reported yet."""
        before_ns = column.times_ns[0] if self._last_ns is None else self._last_ns
        times_ns = np.array((before_ns, *column.times_ns), np.int64)
        for at in np.flatnonzero(np.diff(times_ns) > self._for_ns).tolist():
            if at > 0 or not self._reported:
                yield self._happening(int(times_ns[at]))
        self._last_ns, self._reported = column.times_ns[-1], False

    @property
    def due_ns(self) -> int | None:
        """Time in Unix ns at which the present gap is long enough; None if it is reported."""
        return None if self._last_ns is None or self._reported else self._last_ns + self._for_ns

    def due(self, now_ns: int) -> Iterator[ReadingHappening]:
        """Return the present gap."""
        if self._last_ns is not None and not self._reported:
            self._reported = True
            yield self._happening(self._last_ns)

    def _happening(self, last_ns: int) -> ReadingHappening:
        summary = f"{self._sensor} has sent no usable reading for {self._for_s:g} s"
        return ReadingHappening(
            Happening(summary=summary, details={"for_s": self._for_s}), last_ns, last_ns + self._for_ns
        )
