"""The stage ``evidence``, which completes the evidence of each alert after the alert was written.

The stage makes the clip that a rule requests, and tries again to store pictures that the alert lacks. When all files
are stored, the stage writes a record with the files and their hashes to the topic ``evidence``. An alert never waits
for this stage. If the evidence of an event is deleted while its alert waits, the stage stores nothing for the alert.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import CancelledError
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

from ingest.contract.codec import decode_json
from ingest.contract.records import Alert, Clip, Event, EventData, Evidence, EvidenceRecord
from ingest.contract.topics import ALERTS
from ingest.exceptions import CodecError, LogUnavailable, PictureError
from ingest.kafka.log import Log, LogRecord, TopicPartition
from ingest.runtime import logs
from ingest.runtime.clock import Clock, SystemClock
from stream.alerts.alert import evidence_of
from stream.alerts.incidents import ID
from stream.alerts.stage import record_at
from stream.evidence import names
from stream.evidence.clip.encoder import MEDIA_TYPE
from stream.evidence.clip.maker import make_clips
from stream.evidence.clip.source import blocking, boxes_in, frames_in, span_of
from stream.evidence.clip.window import SETTLE_S, ClipWindow
from stream.evidence.history import EvidenceHistory, has_evidence
from stream.evidence.retention import evidence_outgoing
from stream.evidence.store import EvidenceStore
from stream.exceptions import EvidenceMissing, StoreFailed, UnusableName
from stream.runner.processor import MAX_ERROR_CHARS, Processor, Work

_log = logs.get("stream.evidence")
T = TypeVar("T")

NAME = "evidence"
RETRY_S = 30.0
"""Pause in seconds before an alert is tried again after the evidence store failed. Meanwhile, other alerts are tried
first, so that files that the store refuses do not hold up the others."""
PAUSE_S = 5.0
"""Pause in seconds of all alerts of a partition after the evidence store failed, so that an outage of the store does
not cost a clip for each waiting alert."""
MAX_WAITING = 10_000
"""Maximum number of alerts of a partition that wait for frames or for the store; they take 30 MB. If one more alert
arrives, the alert that is due first, of the refused alerts if there are any, gets its record without a clip."""


class EvidenceStage:
    """The stage that completes the evidence of each alert.

    The state of the stage depends only on the topics ``alerts`` and ``evidence``.
    """

    name = NAME
    topics = (ALERTS,)

    def __init__(self, store: EvidenceStore, clock: Clock | None = None) -> None:
        self._store, self._clock = store, clock or SystemClock()

    async def open(self, tp: TopicPartition, position: int, log: Log) -> EvidenceProcessor:
        """Create the state of a partition: the alerts that already have a record on ``evidence``, and the tombstones
        there."""
        past = EvidenceHistory(log)
        await past.read()
        return EvidenceProcessor(self._store, past, log, asyncio.get_running_loop(), self._clock)


class _DueAlert(NamedTuple):
    """An alert that waits until ``at_s``, in seconds on the monotonic clock. Alerts are sorted by ``at_s``, then by
    offset."""

    at_s: float
    offset: int
    record: LogRecord
    alert: Alert


class EvidenceProcessor(Processor):
    """The processor of one partition of alerts. The methods of the processor run in a worker thread, and read the log
    through the event loop."""

    def __init__(
        self,
        store: EvidenceStore,
        past: EvidenceHistory,
        log: Log,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
    ) -> None:
        self._store, self._past, self._log, self._loop, self._clock = store, past, log, loop, clock
        self._waiting: list[_DueAlert] = []
        self._refused: list[_DueAlert] = []
        """Alerts whose files the store has refused; they are tried again when no other alert is due."""
        self._attempt_at_s = 0.0
        self._outage_since_s: float | None = None

    @property
    def deadline(self) -> float | None:
        """Time at which the next alert is due, on the monotonic clock in seconds. While the store fails, alerts wait
        for ``PAUSE_S`` after each attempt."""
        first = min(self._waiting[:1] + self._refused[:1], default=None)
        return max(first.at_s, self._attempt_at_s) if first else None

    def process(self, record: LogRecord) -> Sequence[Work]:
        """Queue an alert until the last moment of its clip is in the log."""
        try:
            alert = decode_json(Alert, record.value)
        except CodecError as error:  # the dispatcher makes the dead letter
            _log.warning("alert_unreadable", partition=record.partition, offset=record.offset, error=str(error))
            return (Work((), (record.offset,)),)
        if self._past.has_record(alert.id) or not has_evidence(alert):
            return (Work((), (record.offset,)),)
        heapq.heappush(self._waiting, _DueAlert(self._due_s(record, alert), record.offset, record, alert))
        if len(self._waiting) + len(self._refused) <= MAX_WAITING:
            return ()
        first = heapq.heappop(self._refused or self._waiting)
        return self._settle(first, lambda alert: self._without_clip(alert, "too many alerts wait for their clips"))

    def tick(self) -> Sequence[Work]:
        """Complete the evidence of the alert that is due first; of a refused alert only if no other alert is due."""
        is_due = self._waiting and self._waiting[0].at_s <= self._clock.monotonic()
        due = heapq.heappop(self._waiting if is_due or not self._refused else self._refused)
        return self._settle(due, self._completed)

    def _settle(self, due: _DueAlert, complete: Callable[[Alert], EvidenceRecord]) -> Sequence[Work]:
        """Write the record that ``complete`` makes, or queue the alert again if the store fails.

        If the evidence of the alert's event was deleted, store nothing, and remove files that were stored meanwhile.
        """
        try:
            record = None if self._is_deleted(due.alert) else complete(due.alert)
            if record is None or self._is_deleted(due.alert):
                self._remove_files(due.alert)
                return (Work((), (due.offset,)),)
        except StoreFailed as error:
            now_s = self._clock.monotonic()
            if self._outage_since_s is None:
                self._outage_since_s = now_s
                _log.error("evidence_not_stored", alert=due.alert.id, error=str(error), retry_s=PAUSE_S)
            self._attempt_at_s = now_s + PAUSE_S
            heapq.heappush(self._refused, due._replace(at_s=now_s + RETRY_S))
            return ()
        if self._outage_since_s is not None and len(record.files) > len(due.alert.data.evidence):
            _log.info("evidence_stored_again", outage_s=round(self._clock.monotonic() - self._outage_since_s, 1))
            self._outage_since_s = None
        return self._finish(due, record)

    def _is_deleted(self, alert: Alert) -> bool:
        self._wait(self._past.read())
        return self._past.is_deleted(alert.data.event)

    def _remove_files(self, alert: Alert) -> None:
        """Remove all files of an alert's event, also those stored before a crash. Raise StoreFailed."""
        for file in list(self._store.list(f"{names.stem(alert.subject, alert.time, alert.data.event)}-")):
            self._store.delete(file.name)

    def _due_s(self, record: LogRecord, alert: Alert) -> float:
        """Return the monotonic time at which all frames of an alert's clip should be in the log.

        The alert was written after the event's frame was captured, so the last frame is captured at most ``after_s``
        after the alert was written.
        """
        now_s = self._clock.monotonic()
        if alert.data.clip is None:
            return now_s
        wait_s = alert.data.clip.after_s + SETTLE_S
        written_s_ago = self._clock.now_ns() / 1e9 - record.timestamp_ms / 1e3
        return now_s + min(max(0.0, wait_s - written_s_ago), wait_s)

    def _completed(self, alert: Alert) -> EvidenceRecord:
        """Return the ``evidence`` record of an alert, with all files of the alert. Raise StoreFailed or
        LogUnavailable."""
        files, missing = alert.data.evidence, alert.data.evidence_missing
        try:
            files, missing = self._pictures(alert)
            clips, facts = self._clips(alert) if alert.data.clip else ([], None)
        except (MemoryError, StoreFailed, LogUnavailable, TimeoutError, CancelledError):
            raise
        except Exception as error:  # a hostile frame must not end the process after every restart
            _log.exception("evidence_not_completed", alert=alert.id)
            return self._without_clip(alert, repr(error)[:MAX_ERROR_CHARS], files, missing)
        return self._record(alert, (*files, *clips), missing, facts)

    def _pictures(self, alert: Alert) -> tuple[tuple[Evidence, ...], str]:
        """Return the pictures of an alert, and the reason if there are none. If the alert has no pictures yet, store
        them now."""
        data = alert.data
        if data.evidence or not data.evidence_missing or data.frame is None:
            return data.evidence, data.evidence_missing
        try:
            record = self._wait(record_at(self._log, data.frame))
            return evidence_of(event_of(alert), record, self._store).evidence, ""
        except (EvidenceMissing, PictureError, UnusableName) as error:
            return (), str(error)[:MAX_ERROR_CHARS]

    def _clips(self, alert: Alert) -> tuple[list[Evidence], Clip]:
        data, window = alert.data, ClipWindow.of(alert)
        if data.frame is None or data.camera is None or data.clip is None:
            return [], window.facts(missing="the event has no frame")
        span = self._wait(span_of(self._log, data.frame, data.captured_ns, window))
        boxes = self._wait(boxes_in(self._log, span, data.camera)) if data.clip.boxes else None
        frames = blocking(frames_in(self._log, span, data.camera), self._loop)
        try:
            made = make_clips(frames, window, expired=span.expired, boxes=boxes)
        finally:
            frames.close()
        stem = names.stem(alert.subject, alert.time, data.event)
        stored = [self._store.put(f"{stem}-{kind}.mp4", clip, MEDIA_TYPE) for kind, clip in made.clips.items()]
        return stored, made.facts

    def _without_clip(
        self, alert: Alert, reason: str, files: Sequence[Evidence] | None = None, missing: str | None = None
    ) -> EvidenceRecord:
        facts = ClipWindow.of(alert).facts(missing=reason) if alert.data.clip else None
        return self._record(
            alert,
            alert.data.evidence if files is None else files,
            alert.data.evidence_missing if missing is None else missing,
            facts,
        )

    def _record(self, alert: Alert, files: Sequence[Evidence], missing: str, clip: Clip | None) -> EvidenceRecord:
        return EvidenceRecord(
            state="stored",
            subject=alert.subject,
            event=alert.data.event,
            alert=alert.id,
            incident=alert.data.incident,
            captured_ns=alert.data.captured_ns,
            at_ns=self._clock.now_ns(),
            files=tuple(files),
            clip=clip,
            missing=missing,
        )

    def _finish(self, due: _DueAlert, record: EvidenceRecord) -> Sequence[Work]:
        self._past.remember(due.alert.id)
        out = evidence_outgoing(record)
        out = replace(out, headers={**out.headers, ID: due.alert.id.encode()})
        return (Work((out,), (due.offset,)),)

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


def event_of(alert: Alert) -> Event:
    """Return the event of an alert."""
    fields = {name: getattr(alert.data, name) for name in EventData.model_fields}
    return Event(
        id=alert.data.event,
        source=alert.source,
        type=alert.type,
        subject=alert.subject,
        time=alert.time,
        data=EventData(**fields),
    )
