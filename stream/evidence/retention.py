"""Deletion of evidence: which files to delete (pure), and the deletion with its tombstones.

A tombstone is a record on the topic ``evidence`` that says which files were deleted, when, why and by whom. The
tombstone is written before the files are deleted, so that no file disappears without a tombstone. If the process ends
after it has written the tombstone, the next run deletes the files.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

from ingest.contract.codec import encode_json
from ingest.contract.records import EvidenceRecord
from ingest.contract.topics import EVIDENCE
from ingest.exceptions import IngestError
from ingest.kafka.log import Log, Outgoing
from ingest.runtime import logs
from ingest.runtime.clock import Clock, SystemClock
from stream.evidence import names
from stream.evidence.holds import LegalHold, read_holds
from stream.evidence.names import EvidenceName
from stream.evidence.store import EvidenceStore, StoredFile
from stream.exceptions import StoreFailed

_log = logs.get("stream.evidence")

WRITER = "evidence-deletion"
"""Transactional id of every process that deletes evidence. A new process fences an older process that still runs, so
that two processes do not write tombstones for the same files."""
AT_ONCE = 100
"""Number of events whose tombstones are written in one transaction, which takes 20 ms."""
PRUNE_S = 3600.0
"""Pause in seconds between two prunes of a worker."""
FIRST_PRUNE_S = 60.0
"""Time in seconds from the start of a worker to its first prune, so that the start is not slowed down."""
DAY_NS = 86_400 * 10**9
PART_NS = 3600 * 10**9
"""Age in ns from which an incomplete file is removed as the file of a killed process. A running process writes a file
within seconds."""
STATE = "sightline-evidence"
"""Kafka header of a record on ``evidence`` with the record's state: ``stored`` or ``deleted``."""
DELETED = b"deleted"
"""Value of the header ``STATE`` of a tombstone."""


@dataclass(frozen=True, slots=True)
class EvidenceGroup:
    """The files of one event in the store. Retention deletes the files of an event together.

    An event whose alert still waits for its files has a group without files.
    """

    name: EvidenceName
    files: tuple[StoredFile, ...]

    @property
    def size(self) -> int:
        """Number of bytes that the files take in the store."""
        return sum(file.size for file in self.files)

    @property
    def kinds(self) -> list[str]:
        """The kinds of the files, such as ``original``, sorted."""
        return sorted(parsed.kind for file in self.files if (parsed := names.parse(file.name)))

    @property
    def stored_ns(self) -> int:
        """Unix time in ns at which the first of the files was written."""
        return min(file.stored_ns for file in self.files)


@dataclass(frozen=True, slots=True)
class RetentionPolicy:
    """How long and how much evidence is kept. 0 means no limit."""

    max_age_ns: int = 0
    max_bytes: int = 0


@dataclass
class DeletionReport:
    """The outcome of a deletion: the deleted events, and the events that were not deleted, with the reason."""

    events: int = 0
    files: int = 0
    bytes: int = 0
    held: dict[str, str] = field(default_factory=dict)
    """The hold that kept the evidence of an event, by the event's id."""
    failed: dict[str, str] = field(default_factory=dict)
    """The error of the store, by the event's id. An event with an error already has its tombstone, and the next run
    of the deletion deletes its files."""


def grouped(files: Iterable[StoredFile]) -> list[EvidenceGroup]:
    """Return the files of each event, oldest event first. Files whose names are not names of evidence files are left
    out."""
    found: defaultdict[tuple[str, str], list[StoredFile]] = defaultdict(list)
    parsed: dict[tuple[str, str], EvidenceName] = {}
    for file in files:
        if name := names.parse(file.name):
            key = name.subject, name.event
            found[key].append(file)
            parsed[key] = name
    groups = [EvidenceGroup(parsed[key], tuple(sorted(group))) for key, group in found.items()]
    return sorted(groups, key=lambda group: (group.name.first_ns, group.name.event))


def surplus(groups: Sequence[EvidenceGroup], policy: RetentionPolicy, now_ns: int) -> list[tuple[EvidenceGroup, str]]:
    """Return the groups that a policy deletes, each with the reason.

    The age of evidence counts from the time at which it was stored, because the clock of a camera may be wrong. To
    get below ``max_bytes``, the oldest events are deleted first. The caller must leave out held evidence, and
    subtract its size from ``max_bytes``.
    """
    total = sum(group.size for group in groups)
    found = []
    for group in groups:
        if policy.max_age_ns and now_ns - group.stored_ns > policy.max_age_ns:
            found.append((group, f"older than {policy.max_age_ns / DAY_NS:g} days"))
        elif policy.max_bytes and total > policy.max_bytes:
            found.append((group, f"the store has more than {policy.max_bytes} bytes"))
        else:
            continue
        total -= group.size
    return found


def holds_of(group: EvidenceGroup, holds: Sequence[LegalHold]) -> list[str]:
    """Return the names of the holds that cover a group."""
    return [hold.name for hold in holds if hold.covers(group.name)]


async def prune(log: Log, store: EvidenceStore, policy: RetentionPolicy, clock: Clock, by: str) -> DeletionReport:
    """Delete the evidence that a policy does not keep and no legal hold covers, and write tombstones. Incomplete
    files of killed processes are removed too.

    Raise StoreFailed if the store cannot be listed, LogUnavailable or Fenced if a tombstone cannot be written.
    """

    def choose(groups: list[EvidenceGroup], holds: list[LegalHold]) -> list[tuple[EvidenceGroup, str]]:
        held = sum(group.size for group in groups if holds_of(group, holds))
        free = [group for group in groups if not holds_of(group, holds)]
        room = max(1, policy.max_bytes - held) if policy.max_bytes else 0
        return surplus(free, RetentionPolicy(policy.max_age_ns, room), clock.now_ns())

    report = await delete(log, store, choose, clock, by)
    if parts := await asyncio.to_thread(store.remove_parts, clock.now_ns() - PART_NS):
        _log.info("incomplete_evidence_removed", files=parts)
    return report


async def prune_for_ever(
    open_log: Callable[[], AbstractAsyncContextManager[Log]], store: EvidenceStore, policy: RetentionPolicy, by: str
) -> None:
    """Prune a store once an hour. After an error, try again an hour later."""
    pause_s = FIRST_PRUNE_S
    while True:
        await asyncio.sleep(pause_s)
        pause_s = PRUNE_S
        try:
            async with open_log() as log:
                report = await prune(log, store, policy, SystemClock(), by)
        except (StoreFailed, IngestError) as error:
            _log.error("evidence_not_pruned", error=str(error), retry_s=PRUNE_S)
        else:
            if report.events:
                _log.info("evidence_pruned", events=report.events, files=report.files, bytes=report.bytes)


async def delete(
    log: Log,
    store: EvidenceStore,
    choose: Callable[[list[EvidenceGroup], list[LegalHold]], list[tuple[EvidenceGroup, str]]],
    clock: Clock,
    by: str,
) -> DeletionReport:
    """Delete the groups that ``choose`` returns for all groups and holds of a store, and write tombstones.

    A chosen group that a hold covers is not deleted. The holds are read again before each ``AT_ONCE`` events. Files
    that were stored for the deleted events in the meantime are deleted too. Raise the errors of ``prune``.
    """
    holds = await asyncio.to_thread(read_holds, store)
    groups = await asyncio.to_thread(lambda: grouped(store.list()))
    report = DeletionReport()
    chosen = _without_held(await asyncio.to_thread(choose, groups, holds), holds, report)
    if not chosen:
        return report
    reasons = {group.name.event: reason for group, reason in chosen}
    done: set[str] = set()
    writer = await log.writer(WRITER)

    async def delete_all(unwanted: Sequence[tuple[EvidenceGroup, str]]) -> None:
        for start in range(0, len(unwanted), AT_ONCE):
            holds = await asyncio.to_thread(read_holds, store)  # a long deletion respects new holds
            part = _without_held(unwanted[start : start + AT_ONCE], holds, report)
            if not part:
                continue
            stones = [_tombstone(group, reason, clock.now_ns(), by) for group, reason in part]
            await writer.write(stones, "", {})
            for group, _ in part:
                if await _delete_files(store, group, report):
                    done.add(group.name.event)

    try:
        await delete_all(chosen)
        # A file may have been stored after the list was made, by a worker that could not see the tombstone yet.
        groups = await asyncio.to_thread(lambda: grouped(store.list()))
        await delete_all([(group, reasons[group.name.event]) for group in groups if group.name.event in done])
    finally:
        await writer.close()
    report.events = len(done)
    return report


def _without_held(
    chosen: Iterable[tuple[EvidenceGroup, str]], holds: Sequence[LegalHold], report: DeletionReport
) -> list[tuple[EvidenceGroup, str]]:
    """Return the chosen groups of evidence that no legal hold covers, and note the held groups in the report."""
    free = []
    for group, reason in chosen:
        if covering := holds_of(group, holds):
            report.held[group.name.event] = covering[0]
        else:
            free.append((group, reason))
    return free


async def _delete_files(store: EvidenceStore, group: EvidenceGroup, report: DeletionReport) -> bool:
    """Delete the files of an event. If the store fails, note it in the report and return False."""

    def remove() -> None:
        for file in group.files:
            store.delete(file.name)

    try:
        await asyncio.to_thread(remove)
    except StoreFailed as error:
        _log.error("evidence_not_deleted", event_id=group.name.event, error=str(error))
        report.failed[group.name.event] = str(error)
        return False
    report.files += len(group.files)
    report.bytes += group.size
    return True


def _tombstone(group: EvidenceGroup, reason: str, at_ns: int, by: str) -> Outgoing:
    record = EvidenceRecord(
        state="deleted",
        subject=group.name.subject,
        event=group.name.event,
        captured_ns=max(0, group.name.first_ns),
        at_ns=at_ns,
        deleted=tuple(file.name for file in group.files),
        deleted_bytes=group.size,
        reason=reason,
        by=by,
    )
    return evidence_outgoing(record)


def evidence_outgoing(record: EvidenceRecord) -> Outgoing:
    """Return a record of the topic ``evidence`` as it is written."""
    key = record.subject.encode() if record.subject else None
    return Outgoing(EVIDENCE, 0, encode_json(record), key=key, headers={STATE: record.state.encode()})
