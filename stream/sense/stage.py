"""The stage ``sense``: readings in, events out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from prometheus_client import CollectorRegistry

from ingest.contract import headers as h
from ingest.contract.codec import decode, encode_json
from ingest.contract.records import Event, Readings
from ingest.contract.topics import EVENTS, READINGS, partition_for
from ingest.exceptions import CodecError
from ingest.kafka.log import Log, LogRecord, Outgoing, TopicPartition
from ingest.runtime import logs
from ingest.site.topic.view import Config
from stream.metrics import SenseMetrics
from stream.readback import HistoryPoint, tail
from stream.runner.processor import ParkingProcessor, Work
from stream.sense.rule import SensorRule
from stream.sense.sensor import SensorWatch

_log = logs.get("stream.sense")

NAME = "sense"
MARGIN_S = 10.0
"""Beside those: the lateness that is allowed, and what lies between a sensor's clock and the broker's."""


class SenseStage:
    """Cleans readings and holds them against thresholds. ``config`` is how the site stood at the start.

    After a restart, each sensor goes on with its last windows, in its own time, however rarely it writes beside the
    others. A sensor that wrote nothing for longer than it should, or too little to fill a window, is taken to be
    within its bounds: a breach that lasts is then told once more, since nothing says whether it has ended meanwhile.
    """

    name = NAME
    topics = (READINGS,)

    def __init__(self, config: Config, event_partitions: int, metrics: SenseMetrics | None = None) -> None:
        self._config = config
        self._partitions = event_partitions
        self._metrics = metrics or SenseMetrics(CollectorRegistry())

    async def open(self, tp: TopicPartition, position: int, log: Log) -> SenseProcessor:
        """Make a partition's state by reading back its last windows, of which nothing is told again."""
        processor = SenseProcessor(self._config, self._partitions, self._metrics)
        for record in await tail(log, tp, position, processor.place, processor.longest_s):
            processor.remember(record)
        return processor


class SenseProcessor(ParkingProcessor[tuple[Readings, list[Event]]]):
    """One partition: cleaning, windows and thresholds of its sensors.

    Nothing is held back: an open window is read back by the next owner.
    """

    def __init__(self, config: Config, event_partitions: int, metrics: SenseMetrics) -> None:
        super().__init__(NAME)
        self._configs = {sensor.name: sensor for sensor in config.sensors}
        self._rules: defaultdict[str, list[SensorRule]] = defaultdict(list)
        for rule in config.of(SensorRule):  # type: ignore[type-abstract]
            self._rules[rule.sensor].append(rule)
        self._partitions = event_partitions
        self._metrics = metrics
        self._sensors: dict[str, SensorWatch] = {}

    @property
    def longest_s(self) -> float:
        """How far back a sensor's last record may lie, by the broker's clock: its windows, and what it waits with."""
        windows_s = max(map(self._tail_s, self._rules), default=MARGIN_S)
        return windows_s + max((config.max_delay_s for config in self._configs.values()), default=0.0)

    def place(self, record: LogRecord) -> HistoryPoint | None:
        """Return where readings stand in their sensor's past, None when they cannot be read."""
        try:
            readings = decode(Readings, record.value)
        except CodecError:
            return None
        # All in one epoch: windows, and whether a bound is broken, outlast the start of another one.
        return HistoryPoint(readings.sensor, 0, readings.times_ns[-1], self._tail_s(readings.sensor))

    def remember(self, record: LogRecord) -> None:
        """Take a run of readings of the past: its events are out, and if it could not be used it has been parked."""
        try:
            readings = decode(Readings, record.value)
            self._sensor(readings.sensor).step(readings)
        except MemoryError:
            raise
        except Exception:
            return

    def _decide(self, record: LogRecord) -> tuple[Readings, list[Event]]:
        readings = decode(Readings, record.value)
        return readings, self._step(readings)

    def _emit(self, record: LogRecord, outcome: tuple[Readings, list[Event]]) -> Sequence[Work]:
        readings, events = outcome
        return [Work(tuple(self._outgoing(event, readings.sensor) for event in events), (record.offset,))]

    def _step(self, readings: Readings) -> list[Event]:
        """Take readings and count those that made no difference, so that a sensor that falls silent is seen."""
        sensor = self._sensor(readings.sensor)
        dropped, late, set_back = sensor.dropped.copy(), sensor.late, sensor.set_back
        events = sensor.step(readings)
        begun_anew = sensor.set_back - set_back
        if begun_anew:
            _log.warning("clock set back", sensor=readings.sensor, rules=sorted(begun_anew), epoch=readings.epoch)
        self._metrics.count(readings.sensor, sensor.dropped - dropped, sensor.late - late, begun_anew)
        return events

    def _sensor(self, name: str) -> SensorWatch:
        if name not in self._sensors:
            self._sensors[name] = SensorWatch(name, self._configs.get(name), self._rules.get(name, ()))
        return self._sensors[name]

    def _tail_s(self, sensor: str) -> float:
        """Return the past that a sensor's rules need, in seconds."""
        config = self._configs.get(sensor)
        interval_s = 1 / config.rate_hz if config else 0.0
        return max((rule.tail_s(interval_s) for rule in self._rules.get(sensor, ())), default=0.0) + MARGIN_S

    def _outgoing(self, event: Event, sensor: str) -> Outgoing:
        partition = partition_for(sensor, self._partitions)
        return Outgoing(EVENTS, partition, encode_json(event), key=sensor.encode(), headers=h.cloud_event_headers())
