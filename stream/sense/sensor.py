"""The state of one sensor: cleaning of its readings, windows, and rules. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from ingest.contract.records import GOOD, Event, Readings
from ingest.site import SensorConfig
from stream.events import make_event
from stream.sense.rule import SensorRule
from stream.sense.windows import TumblingWindows


class Cleaner:
    """A filter that drops repeated and impossible readings. ``dropped`` counts them by reason.

    ``repeat``: read before. ``old-epoch``: from before the device's last start. ``suspect``: marked so by the device.
    ``range``: outside of the range that the sensor can measure.
    """

    def __init__(self, config: SensorConfig | None) -> None:
        self._low = config.low if config else float("-inf")
        self._high = config.high if config else float("inf")
        self._mark: tuple[int, int] = (-1, -1)
        self.dropped: Counter[str] = Counter()

    @property
    def epoch(self) -> int:
        """The highest epoch so far, -1 before the first reading."""
        return self._mark[0]

    def clean(self, readings: Readings) -> list[tuple[int, float]]:
        """Return the readings that count, as (Unix ns, value)."""
        kept: list[tuple[int, float]] = []
        rows = zip(readings.times_ns, readings.values, readings.quality, strict=True)
        for row, (at_ns, value, quality) in enumerate(rows):
            position = (readings.epoch, readings.seq + row)
            reason = self._reason(position, value, quality)
            if reason:
                self.dropped[reason] += 1
            else:
                kept.append((at_ns, value))
            self._mark = max(self._mark, position)
        return kept

    def _reason(self, position: tuple[int, int], value: float, quality: int) -> str:
        if position <= self._mark:
            return "repeat" if position[0] == self.epoch else "old-epoch"
        if quality != GOOD:
            return "suspect"
        if not self._low <= value <= self._high:  # NaN is outside of every range
            return "range"
        return ""


class SensorWatch:
    """State of one sensor. ``config`` is None for a sensor that the site does not have."""

    def __init__(self, sensor: str, config: SensorConfig | None, rules: Iterable[SensorRule]) -> None:
        self._sensor = sensor
        self._site = config.site if config else ""
        self._cleaner = Cleaner(config)
        self._watches = [(rule, TumblingWindows(rule.window_s), rule.watch(sensor, config)) for rule in rules]

    def counts(self) -> tuple[Counter[str], Counter[str], Counter[str]]:
        """Return the dropped readings by reason, the late readings by rule, and the restarts of windows by rule."""
        late = Counter({rule.name: windows.late for rule, windows, _ in self._watches})
        set_back = Counter({rule.name: windows.set_back for rule, windows, _ in self._watches})
        return self._cleaner.dropped.copy(), late, set_back

    def step(self, readings: Readings) -> list[Event]:
        """Process the next column of readings and return its events."""
        restarted = -1 < self._cleaner.epoch < readings.epoch
        kept = self._cleaner.clean(readings)
        events: list[Event] = []
        for rule, windows, watch in self._watches:
            if restarted:
                windows.begin_epoch()
            for window in windows.add(kept):
                happening = watch.step(window) if window.count >= rule.min_readings else None
                if happening:
                    cause, name = (window.start_ns,), self._sensor
                    events.append(
                        make_event(rule, happening, name, cause, window.start_ns, site=self._site, sensor=name)
                    )
        return events
