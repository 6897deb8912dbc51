"""Rule ``anomaly``: the mean of a window is far from the usual means of the sensor. Pure.

The score is the modified z-score of Iglewicz and Hoaglin (1993): the deviation from the median of the history, in
standard deviations as estimated from the median absolute deviation. Unlike mean and standard deviation, the two
medians hardly change with a few extreme values, so that one anomaly does not hide the next one.
"""

from __future__ import annotations

import statistics
from collections import deque
from typing import ClassVar, Literal, Self

from pydantic import Field

from ingest.site import SensorConfig
from ingest.site.entry import PositiveSeconds
from stream.rules import Happening
from stream.sense.clean import MAD_TO_SIGMA
from stream.sense.rule import WindowRule, WindowWatch
from stream.sense.windows import ReadingWindow


class AnomalyRule(WindowRule):
    """Report once when the mean of a window deviates from the median of the last ``history_s`` by more than
    ``deviations`` standard deviations.

    Report a second time only after the deviation has been smaller than ``deviations`` by at least ``hysteresis``. The
    standard deviation is estimated from the median absolute deviation, and is at least ``min_deviation``.
    """

    EVENT_TYPE: ClassVar[str] = "sightline.reading.anomaly"
    TAKES_COLUMNS: ClassVar[bool] = True

    type: Literal["anomaly"] = "anomaly"
    history_s: PositiveSeconds = 600.0
    deviations: float = Field(default=6.0, gt=0.0)
    hysteresis: float = Field(default=1.0, ge=0.0)
    min_deviation: float = Field(default=0.0, ge=0.0)
    """Smallest standard deviation, in the unit of the readings. With 0, a sensor that repeats one value has no
    score."""
    min_windows: int = Field(default=20, ge=3)
    """Minimum number of windows in the history. With fewer windows in the history, the rule computes no score."""

    def tail_s(self, interval_s: float) -> float:
        """Return twice the length of the history: in its second half, a new owner computes the same scores as the
        previous owner."""
        return super().tail_s(interval_s) + 2 * self.history_s

    def watch(self, sensor: str, config: SensorConfig | None) -> AnomalyWatch:
        """Create the state of the rule for one sensor."""
        return AnomalyWatch(self, sensor, config)


class AnomalyWatch(WindowWatch):
    """The state of the rule for one sensor: the means of the last windows, and whether an anomaly lasts."""

    def __init__(self, rule: AnomalyRule, sensor: str, config: SensorConfig | None) -> None:
        self._rule, self._sensor = rule, sensor
        self._quantity, self._unit = (config.quantity, config.rule_unit) if config else ("value", "")
        self._history_ns = round(rule.history_s * 1e9)
        self._means: deque[tuple[int, float]] = deque()
        self._anomalous = False

    def step(self, window: ReadingWindow) -> Happening | None:
        """Process the next window, and return the situation to report if an anomaly begins with this window."""
        at_ns, mean = window.start_ns, window.mean
        while self._means and self._means[-1][0] >= at_ns:  # an evaluation of a silent sensor, or a clock set back
            self._means.pop()
        while self._means and at_ns - self._means[0][0] > self._history_ns:
            self._means.popleft()
        found = self._score(mean)
        self._means.append((at_ns, mean))
        if found is None:
            return None
        score, median = found
        was_anomalous = self._anomalous
        self._anomalous = score > self._rule.deviations - (self._rule.hysteresis if was_anomalous else 0.0)
        if was_anomalous or not self._anomalous:
            return None
        side = "above" if mean > median else "below"
        return Happening(
            summary=f"{self._quantity} of {self._sensor} is {mean:.6g} {self._unit}, "
            f"{score:.1f} deviations {side} its usual {median:.6g} {self._unit}",
            details={"value": mean, "unit": self._unit, "score": round(score, 3), "median": median},
        )

    def rearm(self) -> None:
        """If an anomaly still lasts, report the anomaly with the next window."""
        self._anomalous = False

    def copy(self) -> Self:
        """Return a copy with a history of its own."""
        other = super().copy()
        other._means = self._means.copy()
        return other

    def _score(self, mean: float) -> tuple[float, float] | None:
        """Return the score of a mean, and the median of the history; None if the history has no score."""
        if len(self._means) < self._rule.min_windows:
            return None
        history = [value for _, value in self._means]
        median = statistics.median(history)
        deviation = MAD_TO_SIGMA * statistics.median(abs(value - median) for value in history)
        deviation = max(deviation, self._rule.min_deviation)
        return (abs(mean - median) / deviation, median) if deviation > 0.0 else None
