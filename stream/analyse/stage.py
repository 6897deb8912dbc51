"""The stage ``analyse``, which turns the results of models into events."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from typing import NamedTuple

from ingest.contract import headers as h
from ingest.contract.codec import decode, encode_json
from ingest.contract.identity import FrameId
from ingest.contract.records import Event, JoinSignal, Measure, Result
from ingest.contract.topics import EVENTS, MEASURES, RESULTS, partition_for
from ingest.kafka.log import Log, LogRecord, Outgoing, TopicPartition
from ingest.site import CameraConfig, ConfigEntry, MeasureConfig, PipelineConfig
from ingest.site.topic.view import Config
from stream.analyse.analysers import Analysers, RuleSet
from stream.analyse.measures.book import KEPT_S
from stream.analyse.reported import ReportedEvents, reported_in
from stream.analyse.rule import CameraRule
from stream.analyse.tracking.tracker import ByteTracker, Tracker
from stream.join.processor import signal_record
from stream.readback import tail, written_from, written_since
from stream.rules import validated
from stream.runner.processor import ParkingProcessor, Work

NAME = "analyse"
CLOCKS_MS = 60_000
"""Maximum difference in ms between the clock of an engine node, which stamps results, and the clock of an analyser,
which stamps events."""


def runnable(entry: ConfigEntry) -> ConfigEntry:
    """Convert a rule of the ``config`` topic to the model of its plug-in, and check that this process can run it.

    Return any other entry unchanged. Raise ConfigError.
    """
    found = validated(entry)
    if isinstance(found, CameraRule):
        found.require()
    return found


class AnalyseStage:
    """The stage that tracks objects and applies the rules of a site.

    The rules in ``config`` must be validated by ``runnable``.

    After a restart, the stage reads back past results. The past results span more than twice the longest dwell time
    or cooldown of the camera's rules, by the camera's clock. A track or visit that began within the past results
    keeps its id. An object that was present before the past results was already reported, and is not reported again.
    The track of an object that was present before the past results gets another name, and its next event begins a new
    incident. A killed process may have written events after its last commit. The stage reads back the events that are
    already written, and does not write them again, even if their track has another name now.

    A restart loses state in two cases. On a busy partition, a rule with very long times may need more past results
    than ``readback.offsets_for`` allows. A rule without enough past results may report an object again that was
    present all along. A camera that has no result among the past results starts without tracks.
    """

    name = NAME
    topics = (RESULTS,)

    def __init__(
        self,
        config: Config,
        event_partitions: int,
        make_tracker: Callable[[float], Tracker] = ByteTracker,
        measure_partitions: int | None = None,
        signal_partitions: int | None = None,
    ) -> None:
        self._partitions = event_partitions
        self._measure_partitions = measure_partitions or event_partitions
        self._signal_partitions = signal_partitions or event_partitions
        self._make_tracker = make_tracker
        self.configure(config)

    def configure(self, config: Config) -> None:
        """Use other rules from the next result on. Unchanged rules keep their state."""
        self.config = config
        self._rules = RuleSet(
            config.of(CameraRule),  # type: ignore[type-abstract]
            config.of(CameraConfig),
            config.of(MeasureConfig),
            config.of(PipelineConfig),
        )

    async def open(self, tp: TopicPartition, position: int, log: Log) -> AnalyseProcessor:
        """Create the state of a partition from the partition's results of the last minutes.

        Events of the results that are read back are not written again.
        """
        past = await tail(log, tp, position, self._rules.history_point, self._rules.longest_s)
        since_ms = await written_from(log, tp, position, past)
        cameras = {decode(Result, record.value).camera for record in past} | await self._configured(tp, log)
        analysers = Analysers(lambda: self._rules, self._make_tracker)
        if since_ms is not None:
            reported = await self._reported(cameras, since_ms, log)
            analysers.remember(past, reported, await self._measured(cameras, since_ms, log))
        return AnalyseProcessor(analysers, self._partitions, self._measure_partitions, self._signal_partitions)

    async def _configured(self, tp: TopicPartition, log: Log) -> set[str]:
        """Return the configured cameras of a partition.

        Cameras without a committed result are included, because an earlier owner may have written their events
        without a commit.
        """
        count, pins = (await log.partitions())[tp.topic], self.config.pins
        return {camera for camera in self._rules.watched if partition_for(camera, count, pins) == tp.partition}

    async def _reported(self, cameras: Set[str], since_ms: int, log: Log) -> Mapping[tuple[str, str], ReportedEvents]:
        placed = {one.name: one.full_place for one in self.config.of(CameraConfig)}
        places = {placed.get(camera, camera) for camera in cameras}
        tps = sorted({TopicPartition(EVENTS, partition_for(place, self._partitions)) for place in places})
        return reported_in([event for tp in tps for event in await written_since(log, tp, since_ms - CLOCKS_MS)])

    async def _measured(self, cameras: Set[str], since_ms: int, log: Log) -> list[LogRecord]:
        """Return the measures that were written for cameras, including measures of minutes before ``since_ms``."""
        if not self._rules.measures:
            return []
        since_ms -= round(KEPT_S * 1000)
        tps = sorted(
            {TopicPartition(MEASURES, partition_for(camera, self._measure_partitions)) for camera in cameras}
        )
        return [record for tp in tps for record in await written_since(log, tp, since_ms)]


class _Outcome(NamedTuple):
    result: Result
    events: list[Event]
    measures: list[Measure]
    signals: list[JoinSignal]


class AnalyseProcessor(ParkingProcessor[_Outcome]):
    """The processor of one partition of results.

    A result whose detections cannot be tracked becomes a dead letter.
    """

    in_event_loop = True

    def __init__(
        self, analysers: Analysers, event_partitions: int, measure_partitions: int, signal_partitions: int
    ) -> None:
        super().__init__(NAME)
        self._analysers = analysers
        self._partitions = event_partitions
        self._measure_partitions = measure_partitions
        self._signal_partitions = signal_partitions

    def _decide(self, record: LogRecord) -> _Outcome:
        result = decode(Result, record.value)
        events = self._analysers.step(result)
        return _Outcome(result, events, self._analysers.take_measures(), self._analysers.take_signals())

    def _emit(self, record: LogRecord, outcome: _Outcome) -> Sequence[Work]:
        result, events, measures, signals = outcome
        if not (events or measures or signals):  # as for most results
            return [Work(done=(record.offset,))]
        key, count = result.camera.encode(), self._partitions
        measured = partition_for(result.camera, self._measure_partitions)
        headers = h.frame_headers([result.id], result.lane, result.traceparent)
        outputs = [
            *(
                Outgoing(
                    EVENTS,
                    partition_for(one.place, count),
                    encode_json(one),
                    key=key,
                    headers=_event_headers(one, result),
                )
                for one in events
            ),
            *(Outgoing(MEASURES, measured, encode_json(one), key=key, headers=headers) for one in measures),
            *(signal_record(one, self._signal_partitions) for one in signals),
        ]
        return [Work(tuple(outputs), (record.offset,))]


def _event_headers(event: Event, result: Result) -> dict[str, bytes]:
    """Return the headers of an event that ``result`` completed. The event may have an earlier frame, in which its
    track waited for re-identification."""
    frame = FrameId(result.camera, event.data.epoch, event.data.seq)
    return h.CLOUD_EVENT | h.frame_headers([frame], result.lane, result.traceparent)
