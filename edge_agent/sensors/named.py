"""From a device's names to the site's: which sensor a line is for. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

from edge_agent.sensors.source import Sink
from edge_agent.sensors.sources.lines import Lines, Named
from ingest.site import SensorConfig
from ingest.site.sensoroptions import LineOptions


class LineReader:
    """Reads what a device says and gives it to the sensors that want it.

    A reading without a name is that of the only sensor. When there are several, nobody can say whose it is.
    """

    def __init__(self, sensors: Sequence[SensorConfig]) -> None:
        options = [cast(LineOptions, sensor.parsed) for sensor in sensors]
        self._lines = Lines(options[0].format, options[0].header)
        self._sensors: dict[str, list[str]] = {}
        for sensor, said in zip(sensors, options, strict=True):
            self._sensors.setdefault(said.field or sensor.name, []).append(sensor.name)
        self._only = [sensors[0].name] if len(sensors) == 1 else []

    def feed(self, data: bytes, sink: Sink) -> None:
        """Take bytes as they come."""
        self._give(self._lines.feed(data), sink)

    def end(self, sink: Sink) -> None:
        """Take note that no more will come."""
        self._give(self._lines.end(), sink)

    def _give(self, found: Iterable[Named], sink: Sink) -> None:
        for name, reading in found:
            wanted = self._sensors.get(name, []) if name else self._only
            for sensor in wanted:
                sink.take(sensor, reading)
            if not wanted:
                sink.unclaimed(name)
