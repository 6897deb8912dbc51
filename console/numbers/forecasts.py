"""The forecasts of the last day, in memory, beside the measured values."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import ClassVar, NamedTuple

import numpy as np

from console.live.view import TopicView
from console.numbers.measures import MeasureSeries
from ingest.contract.codec import MAX_JSON_BYTES, decode_json
from ingest.contract.records import Forecast, ForecastPoint
from ingest.contract.topics import FORECASTS
from ingest.kafka.log import LogRecord
from stream.sense.forecast.steps import MinuteValue, Steps, aggregate_of

MAX_STEPS = 1440
"""Maximum number of steps of one forecast in memory: a day at steps of one minute."""
MAX_FORECASTS = 300


class ForecastColumns(NamedTuple):
    """Measured and forecast values of the steps of a series, in columns of equal length. ``start_s`` has the starts
    of the steps in Unix seconds. A past step has the forecast that was made one step before it, and a future step the
    value of the newest forecast."""

    start_s: list[int]
    measured: list[float | None]
    value: list[float | None]
    lower: list[float | None]
    upper: list[float | None]


class ForecastSeries:
    """The newest record of one forecast, and the forecasts one step ahead by the start of their step in seconds."""

    def __init__(self, record: Forecast) -> None:
        self.newest = record
        self.steps: OrderedDict[int, ForecastPoint] = OrderedDict()

    def add(self, record: Forecast) -> None:
        """Add a record. Unless the record is the newest one, only its forecast one step ahead is kept."""
        if record.made_ns >= self.newest.made_ns:
            self.newest = record
        if record.points:
            point = record.points[0]
            self.steps[point.start_ns // 10**9] = point
        while len(self.steps) > MAX_STEPS:
            del self.steps[min(self.steps)]

    def columns(self, measures: MeasureSeries | None, since_s: int) -> ForecastColumns:
        """Return the steps of the series from ``since_s`` on, and the future steps of the newest forecast.
        ``measures`` has the measured values by minute, which are combined to the steps."""
        record = self.newest
        ahead = {point.start_ns // 10**9: point for point in record.points}
        found = {at_s: point for at_s, point in self.steps.items() if at_s >= since_s} | ahead
        starts = sorted(found)
        steps = Steps(record.step_s, aggregate_of(record.value))
        for start_s, minute in measures.minutes.items() if measures else ():
            steps.add(MinuteValue(start_s // 60, minute.values.get(record.value), minute.observed))
        values = [steps.value(start_s // record.step_s) for start_s in starts]
        points = [found[start_s] for start_s in starts]
        return ForecastColumns(
            starts,
            [None if np.isnan(value) else round(value, 3) for value in values],
            [point.value for point in points],
            [point.lower for point in points],
            [point.upper for point in points],
        )


class ForecastView(TopicView):
    """The forecasts of the last day."""

    topic: ClassVar[str] = FORECASTS
    backlog: ClassVar[int] = 5_000

    def __init__(self) -> None:
        self._series: OrderedDict[str, ForecastSeries] = OrderedDict()

    def __iter__(self) -> Iterator[ForecastSeries]:
        return iter(sorted(self._series.values(), key=lambda series: series.newest.name))

    def series(self, name: str) -> ForecastSeries | None:
        """Return the records of the forecast ``name``; None if no record of it was read."""
        return self._series.get(name)

    def apply(self, record: LogRecord) -> None:
        """Add a record."""
        forecast = decode_json(Forecast, record.value, MAX_JSON_BYTES)
        series = self._series.get(forecast.name)
        if series is None or (series.newest.measure, series.newest.camera) != (forecast.measure, forecast.camera):
            series = self._series[forecast.name] = ForecastSeries(forecast)
        self._series.move_to_end(forecast.name)
        series.add(forecast)
        while len(self._series) > MAX_FORECASTS:
            self._series.popitem(last=False)
