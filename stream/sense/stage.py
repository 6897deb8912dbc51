"""The stage ``sense`` reads the readings of sensors and writes the events of sensor rules. The stage also joins
sensors with cameras, for rules that need both, and forecasts measures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

from prometheus_client import CollectorRegistry

from ingest.contract import headers as h
from ingest.contract.codec import decode, encode_json
from ingest.contract.records import Event, Readings
from ingest.contract.topics import EVENTS, MEASURES, READINGS, SIGNALS, partition_for
from ingest.exceptions import CodecError
from ingest.kafka.log import Log, LogRecord, Outgoing, TopicPartition
from ingest.runtime import logs
from ingest.runtime.clock import Clock, SystemClock
from ingest.site import SensorConfig
from ingest.site.topic.view import Config
from stream.exceptions import ForecastModelUnusable
from stream.join.processor import JoinProcessor, signal_record
from stream.join.rule import JoinRule
from stream.metrics import ForecastMetrics, SenseMetrics
from stream.readback import HistoryPoint, tail, written_from
from stream.runner.processor import MAX_ERROR_CHARS, Processor, Work, park
from stream.sense.forecast.model import ForecastModel, ModelSource
from stream.sense.forecast.processor import ForecastProcessor
from stream.sense.minutes import LENGTH_S
from stream.sense.rule import SensorRule
from stream.sense.sensor import NO_COUNTS, SensorCounts, SensorWatch
from stream.written import written_ids

_log = logs.get("stream.sense")

NAME = "sense"
MARGIN_S = 10.0
"""Time in seconds that is read back in addition to the history that the rules need. The margin covers the allowed
lateness, and the difference between the clocks of sensor and broker."""


def no_models(name: str) -> ForecastModel:
    """Raise ForecastModelUnusable, for a worker without a model repository."""
    raise ForecastModelUnusable(
        f"model {name}: this worker has no model repository. Start `sightline sense --models FOLDER`"
    )


@dataclass(frozen=True, slots=True)
class Forecasting:
    """What the stage needs for forecasts: the source of models, the metrics, and the number of partitions of the
    topic ``forecasts``."""

    models: ModelSource
    metrics: ForecastMetrics
    partitions: int


class SenseStage:
    """The stage that cleans readings and applies the sensor rules of a site.

    The rules in ``config`` must have been converted by ``stream.rules.validated``.

    After a restart, the stage reads back the last windows of each sensor by the sensor's own clock, even if the
    sensor seldom writes a record. If the history has too few readings of a sensor to fill a window, the stage assumes
    that the sensor's values are within the bounds. If the values of a sensor without enough history are still outside
    the bounds, the stage reports the breach a second time: the breach may have ended and begun again.

    The last window of a sensor that falls silent is evaluated at a deadline, and once more after a restart. To write
    no event twice, the stage also reads back the events that were written since the first reading that it reads back.
    """

    name = NAME
    topics = (READINGS, SIGNALS, MEASURES)

    def __init__(
        self,
        config: Config,
        event_partitions: int,
        metrics: SenseMetrics | None = None,
        clock: Clock | None = None,
        signal_partitions: int | None = None,
        forecasting: Forecasting | None = None,
        measure_partitions: int | None = None,
    ) -> None:
        self.config = config
        metrics_alone = ForecastMetrics(CollectorRegistry())
        self._forecasting = forecasting or Forecasting(no_models, metrics_alone, event_partitions)
        self._partitions = event_partitions
        self._signal_partitions = signal_partitions or event_partitions
        self._measure_partitions = measure_partitions or event_partitions
        self._clock = clock or SystemClock()
        self._metrics = metrics or SenseMetrics(CollectorRegistry())

    def configure(self, config: Config) -> None:
        """Use other sensors and rules from the next chunk of records on. Unchanged sensors and rules keep their
        state."""
        self.config = config

    async def open(self, tp: TopicPartition, position: int, log: Log) -> Processor:
        """Create the state of a partition of readings, signals or measures from its last records.

        Events that an earlier owner of the partition has written are not written again.
        """
        if tp.topic == SIGNALS:
            joins = JoinProcessor(NAME, lambda: self.config, self._partitions)
            await joins.read_back(tp, position, log)
            return joins
        if tp.topic == MEASURES:
            given = self._forecasting
            forecasts = ForecastProcessor(
                NAME, lambda: self.config, given.models, self._partitions, given.partitions, given.metrics
            )
            await forecasts.read_back(tp, position, log)
            return forecasts
        counts = OutputPartitions(self._partitions, self._signal_partitions, self._measure_partitions)
        processor = SenseProcessor(lambda: self.config, counts, self._metrics, self._clock)
        past = await tail(log, tp, position, processor.history_point, processor.longest_s)
        since_ms = await written_from(log, tp, position, past)
        if since_ms is not None:
            sensors = {decode(Readings, record.value).sensor for record in past} | await self._configured(tp, log)
            processor.reported = await self._reported(sensors, since_ms, log)
        for record in past:
            processor.remember(record)
        return processor

    async def _configured(self, tp: TopicPartition, log: Log) -> set[str]:
        """Return the configured sensors of a partition.

        Sensors without a committed reading are included, because an earlier owner may have written their events
        without a commit.
        """
        count = (await log.partitions())[tp.topic]
        sensors = {rule.sensor for rule in self.config.of(SensorRule)}  # type: ignore[type-abstract]
        return {sensor for sensor in sensors if partition_for(sensor, count) == tp.partition}

    async def _reported(self, sensors: Collection[str], since_ms: int, log: Log) -> frozenset[str]:
        """Return the ids of the events that were written for sensors since ``since_ms``."""
        placed = {one.name: one.full_place for one in self.config.of(SensorConfig)}
        return await written_ids(log, {placed.get(one, one) for one in sensors}, self._partitions, since_ms)


class OutputPartitions(NamedTuple):
    """Numbers of partitions of the topics that the stage writes."""

    events: int
    signals: int
    measures: int


class _ConsecutiveRecords:
    """Records of one sensor whose readings follow each other without a gap, at least one record; exactly one record
    if not ``extensible``."""

    def __init__(self, record: LogRecord, readings: Readings, *, extensible: bool) -> None:
        self.first = readings
        self.written_ms = record.timestamp_ms
        self.records = [record]
        self._epoch = readings.epoch if extensible else -1  # no record has the epoch -1
        self._next_seq = readings.seq + len(readings.values)
        self._times_ns, self._values, self._quality = [readings.times_ns], [readings.values], [readings.quality]

    def extend(self, record: LogRecord, readings: Readings) -> bool:
        """Add a record if its readings follow without a gap. Return whether the record was added."""
        if readings.seq != self._next_seq or readings.epoch != self._epoch:
            return False
        self._next_seq += len(readings.values)
        self.records.append(record)
        self._times_ns.append(readings.times_ns)
        self._values.append(readings.values)
        self._quality.append(readings.quality)
        self.written_ms = record.timestamp_ms
        return True

    def joined(self) -> Readings:
        """Return the readings of all records as one record, without the clocks of their times."""
        if len(self.records) == 1:
            return self.first
        columns = {
            "times_ns": tuple(chain.from_iterable(self._times_ns)),
            "values": tuple(chain.from_iterable(self._values)),
            "quality": tuple(chain.from_iterable(self._quality)),
            "timed_by": (),
        }
        return self.first.model_copy(update=columns)


class SenseProcessor(Processor):
    """The processor of one partition of readings.

    The records of a sensor in one chunk are processed as one record if their readings follow each other without a
    gap and the sensor's rules take columns. A column of readings takes little more time than a single reading.

    The processor holds no offsets back, because the next owner of the partition reads the open windows again.
    ``config`` returns the present configuration.
    """

    ticks_in_silence = True
    in_event_loop = True

    def __init__(
        self,
        config: Callable[[], Config],
        partitions: OutputPartitions,
        metrics: SenseMetrics,
        clock: Clock,
    ) -> None:
        self._partitions = partitions
        self._metrics = metrics
        self._clock = clock
        self._collected: dict[str, _ConsecutiveRecords] = {}
        """The records of the present chunk that are not processed yet, by sensor."""
        self._sensors: dict[str, SensorWatch] = {}
        self._deadlines: dict[str, float] = {}
        self._changed: set[str] = set()  # sensors whose deadline may be another one than in `_deadlines`
        self.reported: frozenset[str] = frozenset()
        """Ids of events that an earlier owner of the partition has written. They must not be written again."""
        self._in_force = config
        self._use(config())

    def _follow(self) -> None:
        config = self._in_force()
        if config is not self._config:
            self._use(config)

    def _use(self, config: Config) -> None:
        self._config = config
        self._configs = {sensor.name: sensor for sensor in config.of(SensorConfig)}
        self._rules: defaultdict[str, list[SensorRule]] = defaultdict(list)
        for rule in config.of(SensorRule):  # type: ignore[type-abstract]
            self._rules[rule.sensor].append(rule)
        self._joins: defaultdict[str, list[JoinRule]] = defaultdict(list)
        for join in config.of(JoinRule):  # type: ignore[type-abstract]
            self._joins[join.sensor].append(join)
        for name, sensor in self._sensors.items():
            sensor.use(self._configs.get(name), self._rules.get(name, ()), self._joins.get(name, ()))
        self._changed.update(self._sensors)

    @property
    def deadline(self) -> float | None:
        """Monotonic time in seconds at which the next window of a silent sensor must be evaluated; None if no window
        waits."""
        for name in self._changed:
            deadline = self._sensors[name].deadline
            if deadline is None:
                self._deadlines.pop(name, None)
            else:
                self._deadlines[name] = deadline
        self._changed.clear()
        return min(self._deadlines.values(), default=None)

    def tick(self) -> Sequence[Work]:
        """Return the events of windows that no reading has closed in time. The returned ``Work`` objects finish no
        offset."""
        self._follow()
        now_s = self._clock.monotonic()
        if (deadline := self.deadline) is None or deadline > now_s:
            return ()
        due = [name for name, deadline in self._deadlines.items() if deadline <= now_s]
        works = [Work(self._outgoing(self._ticked(name, now_s), name) + self._signalled(name)) for name in due]
        return [work for work in works if work.records]

    def _ticked(self, name: str, now_s: float) -> list[Event]:
        self._changed.add(name)
        try:
            return self._sensors[name].tick(now_s)
        except MemoryError:
            raise
        except Exception as error:  # a rule of another package failed: no record is the cause, so none can be parked
            _log.error("sensor_window_failed", sensor=name, error=repr(error)[:MAX_ERROR_CHARS])
            return []

    @property
    def longest_s(self) -> float:
        """Length of the history in which the last record of each sensor is searched, in seconds by the broker's
        clock.

        The history covers the windows of the rules, and the time for which a sensor collects readings for one record.
        """
        measured = {name for name, config in self._configs.items() if config.measure}
        windows_s = max(map(self._tail_s, {*self._rules, *self._joins, *measured}), default=MARGIN_S)
        return windows_s + max((config.max_delay_s for config in self._configs.values()), default=0.0)

    def history_point(self, record: LogRecord) -> HistoryPoint | None:
        """Return the epoch (capture run) and time of a record in its sensor's history; None if the record is
        unreadable."""
        try:
            readings = decode(Readings, record.value)
        except CodecError:
            return None
        # One epoch for all: windows, and the state of a rule, outlast a restart of the device.
        return HistoryPoint(readings.sensor, 0, readings.times_ns[-1], self._tail_s(readings.sensor))

    def remember(self, record: LogRecord) -> None:
        """Process a record of past readings to rebuild the state.

        Drop the events of past readings, which an earlier owner has written. Ignore errors, because a record that
        causes an error is already a dead letter.
        """
        try:
            self._advance(decode(Readings, record.value), record.timestamp_ms, self.reported)
        except MemoryError:
            raise
        except Exception:
            return

    def process(self, record: LogRecord) -> Sequence[Work]:
        """Collect a record for the end of the chunk. Return the work of the sensor's records before it if they cannot
        be processed together with it, and a dead letter if the record cannot be decoded."""
        try:
            readings = decode(Readings, record.value)
        except MemoryError:
            raise
        except Exception as error:
            return (park(record, NAME, error),)
        if not self._collected:
            self._follow()
        name = readings.sensor
        collected = self._collected.get(name)
        if collected and collected.extend(record, readings):
            return ()
        works = self._processed(collected) if collected else ()
        sensor = self._sensors.get(name)
        # a record of a lower epoch may begin a new run of the device, which depends on the number of such records
        extensible = sensor is not None and sensor.epoch == readings.epoch and sensor.takes_columns
        self._collected[name] = _ConsecutiveRecords(record, readings, extensible=extensible)
        return works

    def end_chunk(self) -> Sequence[Work]:
        """Process the records that the chunk has collected."""
        collected, self._collected = self._collected, {}
        return [work for one in collected.values() for work in self._processed(one)]

    def _processed(self, collected: _ConsecutiveRecords) -> Sequence[Work]:
        readings = collected.joined()
        name = readings.sensor
        try:
            events = self._step(readings, collected.written_ms)
        except MemoryError:
            raise
        except Exception as error:
            return [park(record, NAME, error) for record in collected.records]
        done = tuple([record.offset for record in collected.records])
        if not (events or self._sensors[name].has_output):  # as for most records
            return (Work(done=done),)
        records = self._outgoing(events, name) + self._signalled(name) + self._measured(name)
        return (Work(records, done),)

    def _measured(self, sensor: str) -> tuple[Outgoing, ...]:
        """Return the records of the minutes that the sensor has completed."""
        partition, key = partition_for(sensor, self._partitions.measures), sensor.encode()
        return tuple(
            Outgoing(MEASURES, partition, encode_json(one), key=key) for one in self._sensors[sensor].take_measures()
        )

    def _signalled(self, sensor: str) -> tuple[Outgoing, ...]:
        """Return the records of the sensor's signals for the rules that join it with a camera."""
        if not self._joins:
            return ()
        return tuple(signal_record(one, self._partitions.signals) for one in self._sensors[sensor].take_signals())

    def _step(self, readings: Readings, written_ms: int) -> list[Event]:
        """Process readings, and add dropped and late readings and restarts of windows to the metrics."""
        events, counts = self._advance(readings, written_ms)
        if counts is NO_COUNTS:
            return events
        dropped, late, set_back = counts
        if set_back:
            _log.warning(
                "sensor_clock_set_back", sensor=readings.sensor, rules=sorted(set_back), epoch=readings.epoch
            )
        self._metrics.count(readings.sensor, dropped, late, set_back)
        return events

    def _advance(
        self, readings: Readings, written_ms: int, past: Collection[str] | None = None
    ) -> tuple[list[Event], SensorCounts]:
        name = readings.sensor
        sensor = self._sensors.get(name)
        if sensor is None:
            config, rules, joins = self._configs.get(name), self._rules.get(name, ()), self._joins.get(name, ())
            sensor = self._sensors[name] = SensorWatch(name, config, rules, joins)
        self._changed.add(name)
        return sensor.step(readings, written_ms, self._clock.monotonic(), past), sensor.take_counts()

    def _tail_s(self, sensor: str) -> float:
        """Return the length of the history that a sensor's rules and filters need, in seconds."""
        config = self._configs.get(sensor)
        interval_s = 1 / config.rate_hz if config else 0.0
        rules = self._rules.get(sensor, ())
        rules_s = max((rule.tail_s(interval_s) + rule.cooldown_s for rule in rules), default=0.0)
        filter_s = config.hampel.readings * interval_s if config and config.hampel else 0.0
        lateness_s = config.lateness_s if config else 0.0
        valid_s = max((join.valid_s for join in self._joins.get(sensor, ())), default=0.0)
        minute_s = LENGTH_S if config and config.measure else 0.0
        return max(rules_s, valid_s, minute_s) + filter_s + lateness_s + MARGIN_S

    def _outgoing(self, events: Sequence[Event], sensor: str) -> tuple[Outgoing, ...]:
        fresh = [event for event in events if event.id not in self.reported]
        if not fresh:
            return ()
        key, count = sensor.encode(), self._partitions.events
        return tuple(
            Outgoing(EVENTS, partition_for(one.place, count), encode_json(one), key=key, headers=h.CLOUD_EVENT)
            for one in fresh
        )
