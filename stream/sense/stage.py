"""The stage ``sense``: readings in, events out."""

from __future__ import annotations

from collections.abc import Sequence

from ingest import headers as h
from ingest.codec import decode, encode_json
from ingest.configstore import Config
from ingest.deadletter import parked
from ingest.exceptions import CodecError
from ingest.log import Log, LogRecord, Outgoing, Slot
from ingest.records import Event, Readings
from ingest.topics import EVENTS, READINGS, partition_for
from stream.readback import tail
from stream.runner.processor import Work
from stream.sense.clean import Cleaner
from stream.sense.threshold import ThresholdWatch
from stream.sense.windows import Windows

__all__ = ["SenseStage", "Sensing"]

NAME = "sense"
TAIL_WINDOWS = 3
"""Windows of input that a new owner reads back: the open one, and those that say whether a bound was broken."""
TAIL_RECORDS = 20_000


class SenseStage:
    """Cleans readings and holds them against thresholds. ``config`` is how the site stood at the start."""

    name = NAME
    topics = (READINGS,)

    def __init__(self, config: Config, event_partitions: int) -> None:
        self._config = config
        self._partitions = event_partitions

    async def open(self, slot: Slot, position: int, log: Log) -> Sensing:
        """Make a partition's state by reading back its last windows, of which nothing is told again."""
        sensing = Sensing(self._config, self._partitions)
        longest_s = max((rule.window_s for rule in self._config.sensor_rules), default=0.0)
        async for record in tail(log, slot, position, TAIL_WINDOWS * longest_s + 10.0, TAIL_RECORDS):
            sensing.process(record)
        return sensing


class Sensing:
    """One partition: cleaning, windows and thresholds of its sensors."""

    def __init__(self, config: Config, event_partitions: int) -> None:
        self._sensors = {sensor.name: sensor for sensor in config.sensors}
        self._rules = config.sensor_rules
        self._partitions = event_partitions
        self._cleaners: dict[str, Cleaner] = {}
        self._watches: dict[str, list[tuple[Windows, ThresholdWatch]]] = {}

    def process(self, record: LogRecord) -> Sequence[Work]:
        """Take one run of readings and return the events that it makes."""
        try:
            readings = decode(Readings, record.value)
        except CodecError as error:
            return [Work((parked(record, NAME, error),), (record.offset,))]
        sensor = readings.sensor
        config = self._sensors.get(sensor)
        if sensor not in self._cleaners:
            self._cleaners[sensor] = Cleaner(config)
            rules = [rule for rule in self._rules if rule.sensor == sensor]
            self._watches[sensor] = [(Windows(rule.window_s), ThresholdWatch(rule)) for rule in rules]
        kept = self._cleaners[sensor].clean(readings)
        events = [
            event
            for windows, watch in self._watches[sensor]
            for window in windows.add(kept)
            if (event := watch.step(window, sensor, config))
        ]
        return [Work(tuple(self._outgoing(event, sensor) for event in events), (record.offset,))]

    def tick(self) -> Sequence[Work]:
        """Nothing is held back: an open window is read back by the next owner."""
        return ()

    def flush(self) -> Sequence[Work]:
        """Nothing is held back."""
        return ()

    @property
    def deadline(self) -> float | None:
        """Nothing is held back."""
        return None

    def _outgoing(self, event: Event, sensor: str) -> Outgoing:
        partition = partition_for(sensor, self._partitions)
        return Outgoing(EVENTS, partition, encode_json(event), key=sensor.encode(), headers=h.cloud_event_headers())
