"""The processor of one partition of ``signals``: joins candidates of cameras with conditions of sensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ingest.contract import headers as h
from ingest.contract.codec import decode_json, encode_json
from ingest.contract.identity import FrameId
from ingest.contract.records import Event
from ingest.contract.records.signal import JoinSignal
from ingest.contract.topics import EVENTS, SIGNALS, partition_for
from ingest.exceptions import CodecError
from ingest.kafka.log import Log, LogRecord, Outgoing, TopicPartition
from ingest.site import CameraConfig
from ingest.site.topic.view import Config
from stream.join.joiner import Joiner
from stream.join.rule import KEPT_S, JoinRule
from stream.readback import HistoryPoint, tail, written_from
from stream.runner.processor import ParkingProcessor, Work
from stream.written import written_ids

MARGIN_S = 60.0
"""Time in seconds that is read back in addition to the history of the joins, because signals are written some time
after their frames and readings were captured."""


class JoinProcessor(ParkingProcessor[list[Event]]):
    """The processor of one partition of signals. ``config`` returns the present configuration."""

    def __init__(self, stage: str, config: Callable[[], Config], event_partitions: int) -> None:
        super().__init__(stage)
        self._in_force, self._partitions = config, event_partitions
        self._joiners: dict[str, Joiner] = {}
        self._written: frozenset[str] = frozenset()
        self._use(config())

    async def read_back(self, tp: TopicPartition, position: int, log: Log) -> None:
        """Rebuild the state from the signals before ``position``. Raise LogUnavailable."""
        past = await tail(log, tp, position, _history_point, KEPT_S + MARGIN_S)
        signals = [decode_json(JoinSignal, record.value) for record in past]
        since_ms = await written_from(log, tp, position, past)
        if since_ms is not None:
            placed = {one.name: one.full_place for one in self._config.of(CameraConfig)}
            cameras = {one.rule.camera for one in self._joiners.values()}
            places = {placed.get(camera, camera) for camera in cameras}
            self._written = await written_ids(log, places, self._partitions, since_ms)
        for signal in signals:
            if joiner := self._joiners.get(signal.rule):
                joiner.step(signal, self._written)

    def _decide(self, record: LogRecord) -> list[Event]:
        config = self._in_force()
        if config is not self._config:
            self._use(config)
        signal = decode_json(JoinSignal, record.value)
        joiner = self._joiners.get(signal.rule)
        return joiner.step(signal) if joiner else []

    def _emit(self, record: LogRecord, outcome: list[Event]) -> Sequence[Work]:
        fresh = [event for event in outcome if event.id not in self._written]
        return [Work(tuple(map(self._outgoing, fresh)), (record.offset,))]

    def _outgoing(self, event: Event) -> Outgoing:
        data = event.data
        frame = FrameId(event.subject, data.epoch, data.seq)
        headers = h.CLOUD_EVENT | h.frame_headers([frame], data.lane)
        partition = partition_for(event.place, self._partitions)
        return Outgoing(EVENTS, partition, encode_json(event), key=event.subject.encode(), headers=headers)

    def _use(self, config: Config) -> None:
        """Use other rules. Unchanged rules keep their state."""
        self._config, before = config, self._joiners
        rules = config.of(JoinRule)  # type: ignore[type-abstract]
        self._joiners = {rule.name: _kept(before.get(rule.name), rule) for rule in rules}


def signal_record(signal: JoinSignal, partitions: int) -> Outgoing:
    """Return the record of a signal, in the partition of its rule."""
    partition = partition_for(signal.rule, partitions)
    return Outgoing(SIGNALS, partition, encode_json(signal), key=signal.rule.encode())


def _kept(before: Joiner | None, rule: JoinRule) -> Joiner:
    return before if before and before.rule.same_as(rule) else Joiner(rule)


def _history_point(record: LogRecord) -> HistoryPoint | None:
    try:
        signal = decode_json(JoinSignal, record.value)
    except CodecError:
        return None
    source = f"{signal.rule}/{signal.lane}" if signal.camera else f"{signal.rule}/{signal.sensor}//"
    return HistoryPoint(source, 0, signal.at_ns, KEPT_S)
