"""Collect the records of one frame from the log: the frame, its batches, results, dead letters, events and alerts."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from ingest.contract import headers as h
from ingest.contract.codec import MAX_JSON_BYTES, decode, decode_json
from ingest.contract.headers import Failure
from ingest.contract.identity import LATE, LIVE, FrameId
from ingest.contract.records import Alert, Delivery, Event, Frame, Result
from ingest.contract.topics import (
    ALERTS,
    BATCHES,
    BATCHES_LATE,
    DEADLETTER,
    DELIVERIES,
    EVENTS,
    FRAMES,
    FRAMES_LATE,
    RESULTS,
    partition_for,
)
from ingest.exceptions import CodecError
from ingest.kafka.log import Log, LogRecord, TopicPartition
from ingest.site import CameraConfig
from ingest.site.topic.view import Config
from stream.alerts.alert import alert_id
from stream.alerts.incidents import ID
from stream.exceptions import FrameNotFound
from stream.explain.absence import Absence, absence_of, expired
from stream.explain.search import first_from, names, place_in, written_from

V = TypeVar("V")
_BATCHES = 2_000
"""Maximum number of batches that are searched for a frame, because each batch takes half a megabyte."""
_AFTER = 2_000
"""A search for a missing result ends after this number of later frames of the camera. Results of one camera are in
order in each pipeline, but one pipeline may be slower than another."""


@dataclass(frozen=True, slots=True)
class Written(Generic[V]):
    """A decoded record and its position in the log.

    ``at_ms`` is the Unix time in ms at which the broker appended the record.
    """

    value: V
    topic: str
    partition: int
    offset: int
    at_ms: int

    @classmethod
    def of(cls, record: LogRecord, value: V) -> Written[V]:
        """Return a record of the log with its decoded value."""
        return cls(value, record.topic, record.partition, record.offset, record.timestamp_ms)

    @property
    def position(self) -> str:
        """Topic, partition and offset as text."""
        return f"{self.topic}[{self.partition}]@{self.offset}"


@dataclass(slots=True)
class Trail:
    """The records of one frame, in the order of the pipeline. ``absence`` tells why there is no frame record.

    ``frame_id`` is None for the trail of a sensor's alert, which has no frame.
    """

    frame_id: FrameId | None
    lane: str = LIVE
    frame: Written[Frame] | None = None
    absence: Absence | None = None
    batches: dict[str, Written[None]] = field(default_factory=dict)
    """The batch of the frame in each pipeline."""
    results: list[Written[Result]] = field(default_factory=list)
    letters: list[Written[Failure]] = field(default_factory=list)
    events: list[Written[Event]] = field(default_factory=list)
    alerts: list[Written[Alert]] = field(default_factory=list)
    deliveries: list[Written[Delivery]] = field(default_factory=list)


async def frame_trail(log: Log, frame: FrameId, config: Config) -> Trail:
    """Return the records of a frame.

    Raise FrameNotFound for an unknown camera, for a frame that no agent has reported, and for a frame whose records
    are all deleted. Raise LogUnavailable if Kafka cannot be reached.
    """
    trail = Trail(frame)
    partition = partition_for(frame.camera, len(await log.ends(FRAMES)), config.pins)
    await _find_frame(log, trail, frame, partition)
    await _find_results(log, trail, frame, partition)
    if not trail.frame and not trail.results:
        known = any(one.name == frame.camera for one in config.of(CameraConfig))
        trail.absence = await absence_of(log, frame, partition, known)
        return trail
    if not trail.frame:
        trail.absence = await expired(log, trail.results[0].value.source)
    begin_ms = trail.frame.at_ms if trail.frame else trail.results[0].at_ms
    await _find_batches(log, trail, frame, partition, begin_ms)
    await _find_letters(log, trail, frame, begin_ms)
    if trail.results:
        places = {frame.camera} | {one.full_place for one in config.of(CameraConfig) if one.name == frame.camera}
        since_ms = min(one.at_ms for one in trail.results)
        for partition in sorted({partition_for(place, len(await log.ends(EVENTS))) for place in places}):
            await _find_events(log, trail, frame, TopicPartition(EVENTS, partition), since_ms)
    for event in trail.events:
        await _find_alert(log, trail, event)
    return trail


async def trail_of_id(log: Log, wanted: str, config: Config) -> Trail:
    """Return the records of the frame that caused an event or alert with the id ``wanted``.

    The alert of an incident's end leads to the incident's last event. The trail of a sensor's event has only the
    event, its alert and the deliveries. Raise FrameNotFound if the log has neither an event nor an alert
    with this id. Raise LogUnavailable.
    """
    event = await _event_with(log, wanted)
    if event is None and (last := await _last_event_of(log, wanted)):
        event = await _event_with(log, last)
    if event is None:
        raise FrameNotFound(
            f"no event or alert has the id {wanted}: expected CAMERA/EPOCH/SEQ, or an id that the topics events and "
            "alerts still hold. Retention deletes events and alerts after 30 days"
        )
    data = event.value.data
    if data.camera:
        trail = await frame_trail(log, FrameId(data.camera, data.epoch, data.seq), config)
        if trail.events:
            return trail
        trail.lane = data.lane
    else:
        trail = Trail(None)
    trail.events.append(event)
    await _find_alert(log, trail, event)
    return trail


async def _find_frame(log: Log, trail: Trail, frame: FrameId, partition: int) -> None:
    place = (frame.epoch, frame.seq)
    for topic in (FRAMES, FRAMES_LATE):
        record = await first_from(log, TopicPartition(topic, partition), place, place_in(frame.camera))
        if record and names(record, frame):
            trail.lane = h.lane_of(record.headers, topic)
            try:
                trail.frame = Written.of(record, decode(Frame, record.value))
            except CodecError as error:
                trail.absence = Absence("unreadable", f"the record {topic}[{partition}]@{record.offset}: {error}")
            return


async def _find_results(log: Log, trail: Trail, frame: FrameId, partition: int) -> None:
    """Find the results of all pipelines of the frame. If the frame record is missing, search the results by the
    frame's number."""
    tp, place = TopicPartition(RESULTS, partition), (frame.epoch, frame.seq)
    if trail.frame:
        since_ms = trail.frame.at_ms
    else:
        for lane in (LIVE, LATE):
            first = await first_from(log, tp, place, place_in(frame.camera, lane))
            if first and names(first, frame):
                trail.lane, since_ms = lane, first.timestamp_ms
                break
        else:
            return
    place_of, wanted = place_in(frame.camera, trail.lane), {""}
    async with aclosing(written_from(log, tp, since_ms)) as records:
        async for record in records:
            if names(record, frame):
                result = _decoded(record, lambda value: decode(Result, value))
                if result:
                    trail.results.append(result)
                    wanted = (wanted | set(result.value.pipelines)) - {"", result.value.pipeline}
                    wanted -= {one.value.pipeline for one in trail.results}
                if not wanted:
                    return
            elif (now := place_of(record)) and now >= (frame.epoch, frame.seq + _AFTER):
                return


async def _find_batches(log: Log, trail: Trail, frame: FrameId, partition: int, since_ms: int) -> None:
    last_ms = max((one.at_ms for one in trail.results), default=None)
    wanted = {one.value.pipeline for one in trail.results}
    tp = TopicPartition(BATCHES if trail.lane == LIVE else BATCHES_LATE, partition)
    async with aclosing(written_from(log, tp, since_ms, _BATCHES)) as records:
        async for record in records:
            if last_ms is not None and (record.timestamp_ms > last_ms or wanted <= trail.batches.keys()):
                return
            if names(record, frame):
                pipeline = h.pipeline_of(record.headers)
                trail.batches[pipeline] = Written.of(record, None)


async def _find_letters(log: Log, trail: Trail, frame: FrameId, since_ms: int) -> None:
    async with aclosing(written_from(log, TopicPartition(DEADLETTER, 0), since_ms)) as records:
        async for record in records:
            failure = h.read_failure(record.headers) if names(record, frame) else None
            if failure:
                trail.letters.append(Written.of(record, failure))


async def _find_events(log: Log, trail: Trail, frame: FrameId, tp: TopicPartition, since_ms: int) -> None:
    async with aclosing(written_from(log, tp, since_ms)) as records:
        async for record in records:
            event = _decoded(record, _event) if names(record, frame) else None
            if event:
                trail.events.append(event)


async def _find_alert(log: Log, trail: Trail, event: Written[Event]) -> None:
    """Find the alert of an event, and its delivery receipts."""
    wanted = alert_id(event.value)
    count = len(await log.ends(ALERTS))
    for key in (event.value.place, event.value.data.incident):  # older alerts have the partition of their incident
        alert = await _alert_with(log, TopicPartition(ALERTS, partition_for(key, count)), wanted, event.at_ms)
        if alert:
            break
    else:
        return
    trail.alerts.append(alert)
    receipts = TopicPartition(DELIVERIES, alert.partition)
    async with aclosing(written_from(log, receipts, alert.at_ms)) as records:
        async for record in records:
            receipt = _decoded(record, _delivery) if wanted.encode() in record.value else None
            if receipt and receipt.value.alert == wanted:
                trail.deliveries.append(receipt)


async def _alert_with(log: Log, tp: TopicPartition, wanted: str, since_ms: int) -> Written[Alert] | None:
    async with aclosing(written_from(log, tp, since_ms)) as records:
        async for record in records:
            alert = _decoded(record, _alert) if record.headers.get(ID) == wanted.encode() else None
            if alert:
                return alert
    return None


async def _event_with(log: Log, wanted: str) -> Written[Event] | None:
    """Return the event with an id, or the event of the alert with this id."""
    for partition, end in (await log.ends(EVENTS)).items():
        start = (await log.beginnings(EVENTS))[partition]
        async with aclosing(log.read(EVENTS, partition, start, end)) as records:
            async for record in records:
                if wanted.startswith("msg_") or wanted.encode() in record.value:
                    event = _decoded(record, _event)
                    if event and wanted in (event.value.id, alert_id(event.value)):
                        return event
    return None


async def _last_event_of(log: Log, wanted: str) -> str:
    """Return the id of the last event of the incident whose end the alert ``wanted`` reports; empty if there is no
    such alert."""
    for partition, end in (await log.ends(ALERTS)).items():
        start = (await log.beginnings(ALERTS))[partition]
        async with aclosing(log.read(ALERTS, partition, start, end)) as records:
            async for record in records:
                alert = _decoded(record, _alert) if record.headers.get(ID) == wanted.encode() else None
                if alert:
                    return alert.value.data.event
    return ""


def _decoded(record: LogRecord, read: Callable[[bytes], V]) -> Written[V] | None:
    try:
        return Written.of(record, read(record.value))
    except CodecError:
        return None


def _event(value: bytes) -> Event:
    return decode_json(Event, value, MAX_JSON_BYTES)


def _alert(value: bytes) -> Alert:
    return decode_json(Alert, value, MAX_JSON_BYTES)


def _delivery(value: bytes) -> Delivery:
    return decode_json(Delivery, value, MAX_JSON_BYTES)
