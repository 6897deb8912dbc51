"""The stage ``alerts``, which turns each event into an alert. The evidence of an event is stored before its alert is
written. If the pictures of an alert cannot be stored in time, the alert goes out without pictures and gives the
reason."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Sequence
from concurrent.futures import CancelledError
from typing import NamedTuple

from ingest.contract.codec import MAX_JSON_BYTES, decode_json
from ingest.contract.records import Alert, Event, FrameRef
from ingest.contract.topics import ALERTS, EVENTS
from ingest.exceptions import LogUnavailable, PictureError
from ingest.kafka.log import Log, LogRecord, TopicPartition
from ingest.runtime import logs
from ingest.runtime.clock import Clock, SystemClock
from stream.alerts.alert import alert_id, evidence_of, make_alert
from stream.alerts.incidents import ID, PartitionIncidents
from stream.evidence.store import EvidenceStore
from stream.exceptions import EvidenceMissing, StoreFailed, UnusableName
from stream.runner.processor import MAX_ERROR_CHARS, ParkingProcessor, Work

_log = logs.get("stream.alerts")

NAME = "alerts"
KNOWN_ALERTS = 10_000
"""Number of the latest alerts whose ids are remembered for each partition. If the stage ``analyse`` writes an event
twice, the second event makes no alert while the id of the first alert is remembered."""
MAX_READ_BACK = 100_000
"""Maximum number of alerts that a new owner of a partition reads back; it reads back at most as many records of
incidents."""
MAX_EVENT_BYTES = MAX_JSON_BYTES // 2
"""Maximum size of an event in bytes. The event's alert holds the event and the names of the evidence pictures, and
must fit the size limit of JSON records."""
RETRY_S = 5.0
"""Pause in seconds between two attempts to store the picture of the event that has waited longest."""
RETRIES_AT_ONCE = 16
"""Maximum number of waiting events that one call of ``tick`` tries again, so that a backlog does not delay new
events. A call begins no further event after ``STORE_REQUEST_S``, because the watchdog ends a worker whose call takes
60 s."""
MAX_WAITING = 1_000
"""Maximum number of events per partition that wait for the evidence store. If more events wait, the alert of the
event that has waited longest goes out without its pictures."""
PICTURE_WAIT_S = 30.0
"""Maximum time in seconds that an event waits for the evidence store. After 30 s, a person needs the alert more than
its picture. A restart of an evidence store takes less than 30 s."""
STORE_REQUEST_S = 10.0
"""Time limit in seconds of one request of the stage to a bucket. The limit is a third of ``PICTURE_WAIT_S``, because
all events of a partition wait for a request that gets no response."""


class AlertStage:
    """The stage that turns every event into an alert with its pictures, and assigns the event to an incident.

    While the evidence store fails, events with a picture wait for ``PICTURE_WAIT_S``, and events without a picture
    (events of sensors) are processed.
    """

    name = NAME
    topics = (EVENTS,)

    def __init__(self, store: EvidenceStore, alert_partitions: int, clock: Clock | None = None) -> None:
        self._store = store
        self._partitions = alert_partitions
        self._clock = clock or SystemClock()

    async def open(self, tp: TopicPartition, position: int, log: Log) -> AlertProcessor:
        """Create the state of a partition: its incidents, and the ids of the alerts that are already written."""
        incidents = await PartitionIncidents.open(tp, position, log, self._partitions, self._clock)
        processor = AlertProcessor(self._store, incidents, log, asyncio.get_running_loop(), self._clock)
        begins, ends = await log.beginnings(ALERTS), await log.ends(ALERTS)
        # the partitions of events and of alerts are both those of the places
        own = [tp.partition] if len(ends) == len(await log.ends(EVENTS)) else [*ends]
        processor.known_alerts = KNOWN_ALERTS * len(own)
        for partition in own:
            end = ends[partition]
            since = await log.offset_at(TopicPartition(ALERTS, partition), incidents.since_ms)
            start = max(begins[partition], end - MAX_READ_BACK, min(since, end - KNOWN_ALERTS))
            async for record in log.read(ALERTS, partition, start, end):
                alert = record.headers.get(ID, b"").decode(errors="replace")
                if record.offset >= end - KNOWN_ALERTS:
                    processor.remember(alert)
                incidents.written(alert, record.timestamp_ms)
        return processor


class _WaitingEvent(NamedTuple):
    """An event that waits for the evidence store, up to a time on the monotonic clock in seconds."""

    record: LogRecord
    until_s: float


class AlertProcessor(ParkingProcessor[Alert | None]):
    """The processor of one partition of events.

    The processor runs in a worker thread, and reads frames through the event loop.
    """

    ends = (MemoryError, StoreFailed, LogUnavailable, TimeoutError, CancelledError)

    def __init__(
        self,
        store: EvidenceStore,
        incidents: PartitionIncidents,
        log: Log,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
    ) -> None:
        super().__init__(NAME)
        self._store, self._incidents, self._log, self._loop = store, incidents, log, loop
        self._clock = clock
        self.known_alerts = KNOWN_ALERTS
        """Number of the latest alerts whose ids are remembered."""
        self._known: OrderedDict[str, None] = OrderedDict()
        self._waiting: deque[_WaitingEvent] = deque()
        self._retry_at_s = 0.0
        self._outage_since_s: float | None = None

    @property
    def deadline(self) -> float | None:
        """Time of the next attempt to store a waiting event's picture, or of the end of an incident, on the monotonic
        clock in seconds."""
        retry_at_s = self._retry_at_s if self._waiting else None
        return min((at_s for at_s in (retry_at_s, self._incidents.deadline) if at_s is not None), default=None)

    def process(self, record: LogRecord) -> Sequence[Work]:
        """Process one event. While the evidence store fails, an event with a picture waits in a queue."""
        try:
            return super().process(record)
        except StoreFailed as error:
            return self._wait(record, error)

    def tick(self) -> Sequence[Work]:
        """Try to store the pictures of waiting events again, and write the ends of incidents."""
        works, ends = self._retry() if self._waiting else (), self._incidents.ends()
        return [*works, *([Work(ends)] if ends else [])]

    def _retry(self) -> Sequence[Work]:
        """Try to store the pictures of the waiting events again, in order of arrival.

        The alerts of events that have waited for too long go out without pictures.
        """
        works: list[Work] = []
        waiting, self._waiting = self._waiting, deque()
        until_s = self._clock.monotonic() + STORE_REQUEST_S
        try:
            for _ in range(min(RETRIES_AT_ONCE, len(waiting))):
                works += super().process(waiting[0].record)
                waiting.popleft()
                if self._clock.monotonic() >= until_s:
                    break
        except StoreFailed as error:
            now_s = self._clock.monotonic()
            self._retry_at_s = now_s + RETRY_S
            while waiting and waiting[0].until_s <= now_s:
                works += self._without_pictures(waiting.popleft().record, error)
        self._waiting = waiting
        return works

    def _wait(self, record: LogRecord, error: StoreFailed) -> Sequence[Work]:
        now_s = self._clock.monotonic()
        if self._outage_since_s is None:
            self._outage_since_s = now_s
            _log.error("evidence_not_stored", error=str(error), fix="free space in the store, or its connection")
        if not self._waiting:
            self._retry_at_s = now_s + RETRY_S
        self._waiting.append(_WaitingEvent(record, now_s + PICTURE_WAIT_S))
        if len(self._waiting) <= MAX_WAITING:
            return ()
        return self._without_pictures(self._waiting.popleft().record, error)

    def _without_pictures(self, record: LogRecord, error: StoreFailed) -> Sequence[Work]:
        event = decode_json(Event, record.value, MAX_EVENT_BYTES)
        if alert_id(event) in self._known:  # the event is in the queue twice
            return self._emit(record, None)
        return self._emit(record, make_alert(event, (), f"the evidence store failed: {error}"))

    def remember(self, alert: str) -> None:
        """Remember the id of a written alert."""
        self._known[alert] = None
        if len(self._known) > self.known_alerts:
            self._known.popitem(last=False)

    def _decide(self, record: LogRecord) -> Alert | None:
        """Store the evidence of one event and return its alert. Return None if the alert is already written.

        Raise StoreFailed if the evidence store fails.
        """
        event = decode_json(Event, record.value, MAX_EVENT_BYTES)
        if alert_id(event) in self._known:
            return None
        if self._waiting and event.data.frame is not None:
            raise StoreFailed(
                "pictures of earlier events still wait to be stored: expected an evidence store that accepts writes"
            )
        try:
            evidence, colours = evidence_of(event, self._fetch(event.data.frame), self._store)
        except (EvidenceMissing, PictureError, UnusableName) as error:
            _log.warning("alert_without_picture", event_id=event.id, reason=str(error)[:MAX_ERROR_CHARS])
            return make_alert(event, (), str(error))
        if evidence and self._outage_since_s is not None:
            _log.info("evidence_stored_again", outage_s=round(self._clock.monotonic() - self._outage_since_s, 1))
            self._outage_since_s = None
        return make_alert(event, evidence, colours=colours)

    def _emit(self, record: LogRecord, outcome: Alert | None) -> Sequence[Work]:
        event = decode_json(Event, record.value, MAX_EVENT_BYTES)
        if outcome is None:
            return [Work(self._incidents.complete(event, alert_id(event), record), (record.offset,))]
        self.remember(outcome.id)
        changes = self._incidents.add(event, record)
        alert = self._incidents.outgoing(self._incidents.assigned(outcome), event.place)
        return [Work((*changes, alert), (record.offset,))]

    def _fetch(self, ref: FrameRef | None) -> LogRecord | None:
        if ref is None:
            return None
        return asyncio.run_coroutine_threadsafe(record_at(self._log, ref), self._loop).result()


async def record_at(log: Log, ref: FrameRef) -> LogRecord | None:
    """Return the record at an offset of a Kafka partition.

    Return None if retention has deleted the record, or if no record was written at this offset.
    """
    begins = (await log.beginnings(ref.topic)).get(ref.partition)
    if begins is None or not begins <= ref.offset < (await log.ends(ref.topic))[ref.partition]:
        return None
    async for record in log.read(ref.topic, ref.partition, ref.offset, ref.offset + 1):
        return record
    return None
