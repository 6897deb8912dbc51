"""The minutes of a measured sensor, as records of the topic ``measures``. Pure."""

from __future__ import annotations

from ingest.contract.records import Measure
from ingest.site import SensorConfig
from stream.events import event_id
from stream.sense.windows import Column, ReadingWindow, TumblingWindows

SENSOR = "sensor"
"""Type and pipeline of the measures that this module makes."""
MEAN, READINGS = "value.mean", "readings"
"""Names of the values of a minute: the mean of the readings, and their number."""
LENGTH_S = 60.0


class SensorMinutes:
    """The open minutes of one sensor.

    A minute is complete when a reading comes that is later than its end plus the allowed lateness. The minutes depend
    only on the readings, so that a restarted worker makes the same records.
    """

    def __init__(self, config: SensorConfig) -> None:
        self._config = config
        self._windows = TumblingWindows(LENGTH_S, config.lateness_s)

    def begin_epoch(self) -> None:
        """Note that the device was restarted."""
        self._windows.begin_epoch()

    def add(self, column: Column) -> list[Measure]:
        """Add readings, and return the minutes that these readings complete."""
        return [self._measure(window) for window in self._windows.add(column)]

    def _measure(self, window: ReadingWindow) -> Measure:
        name = self._config.name
        return Measure(
            id=event_id(SENSOR, name, window.start_ns),
            name=name,
            type=SENSOR,
            site=self._config.site,
            camera=name,
            pipeline=SENSOR,
            start_ns=window.start_ns,
            observed=1.0,
            values={MEAN: window.mean, READINGS: float(window.count)},
        )
