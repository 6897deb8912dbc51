"""Erase the evidence and dead letters of a camera in a period, or of one track, and report which data is left and
until when."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from ingest.contract.codec import decode, decode_json
from ingest.contract.records import Alert, Event, EvidenceRecord, Frame, Record
from ingest.contract.topics import (
    ALERTS,
    BACKTESTS,
    BATCHES,
    BATCHES_LATE,
    DEADLETTER,
    EVENTS,
    EVIDENCE,
    FRAMES,
    FRAMES_LATE,
    INCIDENTS,
    LABELS,
    MEASURES,
    RESULTS,
    SHADOW,
    TOPICS,
)
from ingest.deadletter import DeadLetter
from ingest.deadletter import erase as erase_letters
from ingest.exceptions import CodecError, ConfigError
from ingest.kafka.log import Log
from ingest.runtime.clock import Clock
from stream.evidence.history import has_evidence
from stream.evidence.holds import LegalHold
from stream.evidence.names import EvidenceName
from stream.evidence.retention import DeletionReport, EvidenceGroup, delete
from stream.evidence.store import EvidenceStore

R = TypeVar("R", bound=Record)

_SEGMENT_DAYS = 7
"""Kafka's default of ``segment.ms`` in days. Kafka deletes whole segment files, and a partition with few records may
write to one file for seven days."""
_DAY_NS = 86_400 * 10**9
_LATENCY_NS = 60 * 10**9
"""Largest difference in ns between the clock of a camera and that of the broker, for dead letters of unknown time."""
_PICTURES = (FRAMES, FRAMES_LATE, BATCHES, BATCHES_LATE)
_FACTS = (RESULTS, EVENTS, MEASURES, INCIDENTS, ALERTS, EVIDENCE, SHADOW, BACKTESTS, LABELS)


class LeftData(NamedTuple):
    """Data of a camera that an erasure cannot delete: its place, its contents, and the latest time in Unix ns until
    which it stays; 0 if the time is unknown."""

    place: str
    contents: str
    until_ns: int


@dataclass
class ErasureReport:
    """What an erasure of personal data deleted, and what it had to leave."""

    evidence: DeletionReport
    dead_letters: int = 0
    left: list[LeftData] = field(default_factory=list)


class Erasure(NamedTuple):
    """The camera and the period of capture times, in Unix ns and both included, whose data is erased.

    With ``events``, the evidence of the events with these ids is erased, and the period is that of the dead letters.
    """

    camera: str
    first_ns: int
    last_ns: int
    reason: str
    events: frozenset[str] = frozenset()

    def covers(self, group: EvidenceGroup) -> bool:
        """Return whether the evidence of an event is erased."""
        name = group.name
        if name.subject != self.camera:
            return False
        if self.events:  # the time in a name is rounded, so it may be after the capture time of the event
            return name.event in self.events
        return name.first_ns <= self.last_ns and name.last_ns >= self.first_ns

    def covers_letter(self, letter: DeadLetter) -> bool:
        """Return whether a dead letter has data of the camera and may have data of the period.

        A letter whose capture time cannot be read is covered if it failed after the begin of the period.
        """
        key = (letter.record.key or b"").decode(errors="replace")
        if self.camera != key and all(frame.camera != self.camera for frame in letter.frames):
            return False
        captured_ns = _captured_ns(letter)
        if captured_ns is None:
            return letter.parked_ms * 10**6 >= self.first_ns - _LATENCY_NS
        return self.first_ns <= captured_ns <= self.last_ns


async def erasure_of_track(log: Log, event: str, reason: str) -> Erasure:
    """Return the erasure of all events of the track that an event is about: one visible passage of one object, such
    as a person. An event without a track stands alone.

    The erasure also covers the dead letters with the camera's frames from the first to the last of these events.
    Raise ConfigError if the topic ``events`` does not have the event or if the event has no camera, LogUnavailable.
    """
    first = None
    async with aclosing(_camera_events(log)) as events:
        async for one in events:
            if one.id == event:
                first = one
                break
    if first is None:
        expected = (
            "the id of a camera's event on the topic events, as the console's page of the event shows it. Erase the "
            "evidence of an older event by --camera, --from and --to"
        )
        raise ConfigError("evidence", "--event", event, expected)
    first_ns = last_ns = first.data.captured_ns
    ids = {first.id}
    if first.data.track:
        async with aclosing(_camera_events(log)) as events:
            async for one in events:
                if _track(one) == _track(first):
                    ids.add(one.id)
                    first_ns, last_ns = min(first_ns, one.data.captured_ns), max(last_ns, one.data.captured_ns)
    return Erasure(first.subject, first_ns, last_ns, reason, frozenset(ids))


def _track(event: Event) -> tuple[str | None, str]:
    """Return the camera and the name of an event's track. The name has the id of the track's first frame, so a replay
    of the same frames gives the same name."""
    return event.data.camera, event.data.track


async def _camera_events(log: Log) -> AsyncGenerator[Event, None]:
    """Yield all events of cameras on the topic ``events``."""
    async with aclosing(_records(log, EVENTS, Event)) as events:
        async for event in events:
            if event.data.camera:
                yield event


async def erase(log: Log, store: EvidenceStore, wanted: Erasure, clock: Clock, by: str) -> ErasureReport:
    """Erase evidence and dead letters, and write tombstones. Evidence under a legal hold stays, and is reported.

    An event whose alert still waits for a clip or a picture gets its tombstone too, so that no file is stored later.

    Raise StoreFailed if the store cannot be listed, LogUnavailable or Fenced if the log cannot be written.
    """

    waiting = await _waiting(log, wanted)

    def choose(groups: list[EvidenceGroup], holds: list[LegalHold]) -> list[tuple[EvidenceGroup, str]]:
        covered = [group for group in groups if wanted.covers(group)]
        stored = {group.name.event for group in covered}
        covered += [group for group in waiting if group.name.event not in stored]
        return [(group, f"erased: {wanted.reason}") for group in covered]

    report = ErasureReport(await delete(log, store, choose, clock, by))
    report.dead_letters = await erase_letters(log, wanted.covers_letter)
    report.left = left_data(clock.now_ns(), report.dead_letters > 0)
    if wanted.events:
        report.left.append(LeftData("other tracks", "Sightline does not recognise a person in another track", 0))
    return report


async def _waiting(log: Log, wanted: Erasure) -> list[EvidenceGroup]:
    """Return a group without files for each event to erase whose alert has no record on ``evidence`` yet."""
    found: dict[str, EvidenceGroup] = {}
    async for alert in _records(log, ALERTS, Alert):
        at_ns = alert.data.captured_ns
        if alert.subject and has_evidence(alert):
            group = EvidenceGroup(EvidenceName(alert.subject, alert.data.event, "", at_ns, at_ns), ())
            if wanted.covers(group):
                found[alert.data.event] = group
    async for record in _records(log, EVIDENCE, EvidenceRecord):
        found.pop(record.event, None)
    return list(found.values())


async def _records(log: Log, topic: str, kind: type[R]) -> AsyncGenerator[R, None]:
    """Yield the records of a topic that can be decoded."""
    begins = await log.beginnings(topic)
    for partition, end in (await log.ends(topic)).items():
        async with aclosing(log.read(topic, partition, begins[partition], end)) as records:
            async for record in records:
                with suppress(CodecError):
                    yield decode_json(kind, record.value)


def left_data(now_ns: int, letters_erased: bool) -> list[LeftData]:
    """Return the data that may be left after an erasure.

    Each record is assumed to be written just now, because late frames may still arrive. A record stays for the
    retention of its topic, and for the time until its segment file ends.
    """

    def until_ns(topic: str) -> int:
        return now_ns + TOPICS[topic].retention_ms * 10**6 + _SEGMENT_DAYS * _DAY_NS

    found = [LeftData(f"topic {topic}", "pictures", until_ns(topic)) for topic in _PICTURES]
    found += [LeftData(f"topic {topic}", "boxes, times and texts, no pictures", until_ns(topic)) for topic in _FACTS]
    if letters_erased:
        found.append(
            LeftData(f"segment files of {DEADLETTER}", "unreadable through Kafka", now_ns + _SEGMENT_DAYS * _DAY_NS)
        )
    found.append(LeftData("spools of agents", "frames that are not sent yet", 0))
    found.append(LeftData("data sets", "pictures that `sightline dataset export` has written", 0))
    found.append(LeftData("receivers and backups", "alerts and copies outside of Sightline", 0))
    return found


def _captured_ns(letter: DeadLetter) -> int | None:
    try:
        if letter.failure.topic in (FRAMES, FRAMES_LATE):
            return decode(Frame, letter.record.value).captured_ns
        if letter.failure.topic in (EVENTS, ALERTS):
            return decode_json(Event, letter.record.value).data.captured_ns
    except CodecError:
        return None
    return None
