"""The minutes of all measures of the last day, in memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import ClassVar, NamedTuple

from console.live.view import TopicView
from ingest.contract.codec import MAX_JSON_BYTES, decode_json
from ingest.contract.records import Measure
from ingest.contract.topics import MEASURES
from ingest.kafka.log import LogRecord

MAX_MINUTES = 1440
"""Maximum number of minutes of one measure in memory: one day."""
MAX_MEASURES = 300
"""Maximum number of measures in memory. If each measure has ten values per minute, a day of all measures takes about
100 MB."""
MAX_KEYS = 40
"""Maximum number of values that are kept of one minute of a measure."""


class MeasuredMinute(NamedTuple):
    """One minute of a measure: the newest revision, the observed share, and the values by name."""

    revision: int
    observed: float
    corrected: bool
    values: dict[str, float]


class MeasureSeries:
    """The minutes of one measure, by their start in Unix seconds."""

    def __init__(self, record: Measure) -> None:
        self.name, self.type, self.site, self.camera = record.name, record.type, record.site, record.camera
        self.minutes: OrderedDict[int, MeasuredMinute] = OrderedDict()

    def add(self, record: Measure) -> None:
        """Add a minute, unless the same or a higher revision of this minute is known."""
        start_s = record.start_ns // 1_000_000_000
        known = self.minutes.get(start_s)
        if known is not None and known.revision >= record.revision:
            return
        values = dict(sorted(record.values.items())[:MAX_KEYS])
        self.minutes[start_s] = MeasuredMinute(record.revision, record.observed, record.corrected, values)
        while len(self.minutes) > MAX_MINUTES:
            del self.minutes[min(self.minutes)]

    def keys(self) -> list[str]:
        """Return the names of all values, sorted."""
        return sorted({key for minute in self.minutes.values() for key in minute.values})

    def columns(self, since_s: int) -> tuple[list[int], list[float], dict[str, list[float | None]]]:
        """Return the starts of all minutes from ``since_s`` on, the observed share of each minute, and a column for
        each value.

        A minute that was not observed has no values, and a count that is missing in an observed minute is 0.
        """
        starts = sorted(start for start in self.minutes if start >= since_s)
        minutes = [self.minutes[start] for start in starts]
        columns = {key: [_value(minute, key) for minute in minutes] for key in self.keys()}
        return starts, [minute.observed for minute in minutes], columns


def _value(minute: MeasuredMinute, key: str) -> float | None:
    if key in minute.values:
        return minute.values[key]
    is_count = not key.endswith((".mean", ".max", ".per_km_lane")) and key != "level_of_service"
    return 0.0 if is_count and minute.observed > 0.0 else None


class MeasureView(TopicView):
    """The minutes of all measures."""

    topic: ClassVar[str] = MEASURES
    backlog: ClassVar[int] = 20_000

    def __init__(self) -> None:
        self._series: OrderedDict[str, MeasureSeries] = OrderedDict()

    def __iter__(self) -> Iterator[MeasureSeries]:
        return iter(sorted(self._series.values(), key=lambda series: series.name))

    def series(self, name: str) -> MeasureSeries | None:
        """Return the series of a measure, None if there is none."""
        return self._series.get(name)

    def apply(self, record: LogRecord) -> None:
        """Add a minute."""
        measure = decode_json(Measure, record.value, MAX_JSON_BYTES)
        series = self._series.get(measure.name)
        if series is None or (series.camera, series.site) != (measure.camera, measure.site):
            series = self._series[measure.name] = MeasureSeries(measure)
        self._series.move_to_end(measure.name)
        series.add(measure)
        while len(self._series) > MAX_MEASURES:
            self._series.popitem(last=False)
