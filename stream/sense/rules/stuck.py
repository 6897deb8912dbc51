"""Rule ``stuck``: the value of a sensor does not change. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal

from pydantic import Field

from ingest.contract.records.event import DetailValue
from ingest.site import SensorConfig
from ingest.site.entry import PositiveSeconds
from stream.rules import Happening
from stream.sense.rule import ReadingHappening, ReadingRule, ReadingWatch
from stream.sense.windows import Column


class StuckRule(ReadingRule):
    """Report once when the readings of ``for_s`` differ by at most ``tolerance``, as those of a broken sensor do.

    A run of nearly equal readings ends at the first reading that differs from any reading of the run by more than
    ``tolerance``. A run is reported at the first reading that comes ``for_s`` or more after the run's first reading.
    """

    EVENT_TYPE: ClassVar[str] = "sightline.sensor.stuck"
    TAKES_COLUMNS: ClassVar[bool] = True

    type: Literal["stuck"] = "stuck"
    for_s: PositiveSeconds = 300.0
    tolerance: float = Field(default=0.0, ge=0.0)

    def tail_s(self, interval_s: float) -> float:
        """Return the length in seconds of the history that the rule needs.

        A run of nearly equal readings that began before this history has already been reported.
        """
        return 2 * self.for_s + 2 * interval_s

    def watch(self, sensor: str, config: SensorConfig | None) -> StuckWatch:
        """Create the state of the rule for one sensor."""
        return StuckWatch(self, sensor, config)


class StuckWatch(ReadingWatch):
    """State of the rule: the present run of readings that hardly differ."""

    def __init__(self, rule: StuckRule, sensor: str, config: SensorConfig | None) -> None:
        self._rule, self._sensor = rule, sensor
        self._quantity, self._unit = (config.quantity, config.rule_unit) if config else ("value", "")
        self._for_ns = round(rule.for_s * 1e9)
        self._since_ns: int | None = None
        self._low = self._high = 0.0
        self._reported = False

    def step(self, column: Column) -> Iterator[ReadingHappening]:
        """Process the next readings, and return the runs of nearly equal readings that are to be reported now.

        A column of readings whose values all lie within the tolerance is processed as a whole.
        """
        low, high = min(column.values), max(column.values)
        if self._since_ns is not None and self._is_within(low, high):
            self._extend(low, high)
            yield from self._due(column.times_ns)
            return
        for at_ns, value in zip(*column, strict=True):
            if self._since_ns is None or not self._is_within(value, value):
                self._since_ns, self._low, self._high, self._reported = at_ns, value, value, False
            self._extend(value, value)
            yield from self._due((at_ns,))

    def rearm(self) -> None:
        """Report the present run of nearly equal readings with the next reading."""
        self._reported = False

    def _is_within(self, low: float, high: float) -> bool:
        return max(high, self._high) - min(low, self._low) <= self._rule.tolerance

    def _extend(self, low: float, high: float) -> None:
        self._low, self._high = min(low, self._low), max(high, self._high)

    def _due(self, times_ns: Sequence[int]) -> Iterator[ReadingHappening]:
        """Return the present run of nearly equal readings, if it is long enough at one of the given times and not
        reported yet.

        If the caller refused the report, for example during a cooldown, the run is due again with the next reading.
        """
        since_ns = self._since_ns
        if since_ns is None or self._reported:
            return
        for at_ns in times_ns:
            if at_ns - since_ns < self._for_ns:
                continue
            self._reported = True
            yield self._happening(since_ns, at_ns)
            if self._reported:
                return

    def _happening(self, since_ns: int, at_ns: int) -> ReadingHappening:
        lasted_s = (at_ns - since_ns) / 1e9
        summary = f"{self._quantity} of {self._sensor} has been {self._high:.6g} {self._unit} for {lasted_s:.0f} s"
        details: dict[str, DetailValue] = {
            "value": self._high,
            "unit": self._unit,
            "lasted_s": round(lasted_s, 3),
        }
        return ReadingHappening(Happening(summary=summary, details=details), since_ns, at_ns)
