"""One sensor: its readings cleaned, put into windows and held against its rules. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from ingest.contract.records import Event, Readings
from ingest.site import SensorConfig, ThresholdRule
from stream.sense.clean import Cleaner
from stream.sense.threshold import ThresholdWatch
from stream.sense.windows import Windows


class SensorWatch:
    """What is known of one sensor. ``config`` is None for one that the site does not have."""

    def __init__(self, sensor: str, config: SensorConfig | None, rules: Iterable[ThresholdRule]) -> None:
        self._sensor = sensor
        self._config = config
        self._cleaner = Cleaner(config)
        self._watches = [(rule.name, Windows(rule.window_s), ThresholdWatch(rule)) for rule in rules]

    @property
    def dropped(self) -> Counter[str]:
        """Readings that did not count, by reason."""
        return self._cleaner.dropped

    @property
    def late(self) -> Counter[str]:
        """Readings that came after their window was closed, by rule."""
        return Counter({rule: windows.late for rule, windows, _ in self._watches})

    @property
    def set_back(self) -> Counter[str]:
        """How often windows began anew because the sensor's clock was set back, by rule."""
        return Counter({rule: windows.set_back for rule, windows, _ in self._watches})

    def step(self, readings: Readings) -> list[Event]:
        """Take the next run of readings and return the events that it makes."""
        restarted = -1 < self._cleaner.epoch < readings.epoch
        kept = self._cleaner.clean(readings)
        events: list[Event] = []
        for _, windows, watch in self._watches:
            if restarted:
                windows.begin_epoch()
            found = (watch.step(window, self._sensor, self._config) for window in windows.add(kept))
            events += [event for event in found if event]
        return events
