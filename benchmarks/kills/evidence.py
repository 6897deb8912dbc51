"""Evidence about a killed agent: the log lines of the module ``witness``, copies of the spool, and the records in
Kafka.

The spool is copied after the killed process is gone and before the agent starts again. The copy of the spool includes
the write-ahead log, from which SQLite has to recover.
"""

from __future__ import annotations

import shutil
import sqlite3
import zlib
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing, closing
from dataclasses import dataclass, field
from pathlib import Path

from edge_agent.spool import schema
from edge_agent.spool.seal import Seal
from ingest.contract import headers as h
from ingest.contract.codec import decode
from ingest.contract.identity import FrameId
from ingest.contract.records import EpochEnd, Heartbeat, Readings, WithheldInterval
from ingest.contract.topics import FRAMES, FRAMES_LATE, READINGS, STATUS
from ingest.kafka.log import Log, LogRecord

_EPOCHS = "SELECT name, epoch, kind, last_kept, told, ended FROM epochs"

Epoch = tuple[str, int]
"""Name and epoch of a camera or a sensor."""


@dataclass
class Numbers:
    """Sequence numbers of one epoch (capture run), and the events of each number, from the log of ``witness``.

    ``given_ns`` holds the monotonic time at which each number was assigned.

    ``promised`` holds the number of each frame in the spool, or the last number of each record of readings.
    """

    given_ns: list[int] = field(default_factory=list)
    withheld: set[int] = field(default_factory=set)
    encoded: dict[int, int] = field(default_factory=dict)
    promised: set[int] = field(default_factory=set)

    def add(self, event: str, seq: int, size: int, at_ns: int) -> None:
        """Add one log line of ``witness``."""
        match event:
            case "number":
                self.given_ns.append(at_ns)
            case "withhold":
                self.withheld.add(seq)
            case "encode":
                self.encoded[seq] = size
            case "promise":
                self.promised.add(seq)


@dataclass(frozen=True, slots=True)
class SpooledRow:
    """One row of a spool: its identity, the CRC-32 of its decrypted record, and its lane."""

    kind: str
    name: str
    epoch: int
    seq: int
    crc: int
    lane: str


@dataclass(frozen=True, slots=True)
class Opened:
    """A row of the spool's table ``epochs``."""

    kind: str
    last_kept: int
    reported: int
    ended: bool


@dataclass
class SpoolCopy:
    """Contents of a spool after a kill.

    ``verdict`` is the result of SQLite's integrity check, or the error of a damaged row.
    """

    verdict: str
    rows: list[SpooledRow] = field(default_factory=list)
    epochs: dict[Epoch, Opened] = field(default_factory=dict)
    sealed: int = 0

    @property
    def open(self) -> list[Epoch]:
        """Epochs that had not ended at the kill."""
        return [epoch for epoch, found in self.epochs.items() if not found.ended]


@dataclass
class Topics:
    """Records that an agent wrote to Kafka, sorted by partition and offset."""

    frames: list[tuple[FrameId, str, int]] = field(default_factory=list)
    """Frame id, lane (``live`` or ``late``), and CRC-32 of each record."""
    readings: list[tuple[Readings, int]] = field(default_factory=list)
    readings_bytes: int = 0
    status: set[int] = field(default_factory=set)
    ends: dict[Epoch, list[EpochEnd]] = field(default_factory=lambda: defaultdict(list))
    accounts: dict[Epoch, list[WithheldInterval]] = field(default_factory=lambda: defaultdict(list))
    notices: list[str] = field(default_factory=list)

    @property
    def bytes_a_reading(self) -> float:
        """Average size of a reading in bytes."""
        return self.readings_bytes / max(1, sum(len(readings.values) for readings, _ in self.readings))

    def beat(self, record: LogRecord) -> None:
        """Add a record of the topic ``status``."""
        self.status.add(zlib.crc32(record.value))
        beat = decode(Heartbeat, record.value)
        self.notices += [beat.reason] if beat.reason else []
        for end in (*beat.ended, *beat.readings.ended):
            self.ends[end.camera, end.epoch].append(end)
        for account in (*beat.accounts, *beat.readings.accounts):
            self.accounts[account.camera, account.epoch].append(account)


def witnessed(files: Iterable[Path]) -> dict[Epoch, Numbers]:
    """Read the log files of ``witness``. Skip the incomplete last line of a killed process."""
    found: dict[Epoch, Numbers] = defaultdict(Numbers)
    for file in files:
        for line in file.read_text().rpartition("\n")[0].splitlines():
            event, name, epoch, seq, size, at_ns = line.split()
            found[name, int(epoch)].add(event, int(seq), int(size), int(at_ns))
    return found


def copy_dead(spool: Path, target: Path, seal: Seal) -> SpoolCopy:
    """Copy the files of a closed spool, and read the copy."""
    for suffix in ("", "-wal"):
        if Path(f"{spool}{suffix}").exists():
            shutil.copy(f"{spool}{suffix}", f"{target}{suffix}")
    return _read(target, seal)


def copy_living(spool: Path, target: Path, seal: Seal) -> SpoolCopy:
    """Copy a spool that an agent uses, in one transaction, and read the copy."""
    with closing(sqlite3.connect(f"file:{spool}?mode=ro", uri=True)) as db, closing(sqlite3.connect(target)) as new:
        db.backup(new)
    return _read(target, seal)


async def read_topics(log: Log) -> Topics:
    """Read all records that an agent has sent."""
    found = Topics()
    for topic in (FRAMES, FRAMES_LATE):
        async for record in _records(log, topic):
            (frame,) = h.frames_of(record.headers)
            found.frames.append((frame, h.lane_of(record.headers, topic), zlib.crc32(record.value)))
    async for record in _records(log, READINGS):
        found.readings.append((decode(Readings, record.value), zlib.crc32(record.value)))
        found.readings_bytes += len(record.value)
    async for record in _records(log, STATUS):
        found.beat(record)
    return found


async def _records(log: Log, topic: str) -> AsyncIterator[LogRecord]:
    for partition, end in (await log.ends(topic)).items():
        async with aclosing(log.read(topic, partition, 0, end)) as records:
            async for record in records:
                yield record


def _read(path: Path, seal: Seal) -> SpoolCopy:
    """Read a copy of a spool, and delete the copy unless it is damaged."""
    with closing(sqlite3.connect(path)) as db:
        try:
            copy = SpoolCopy(str(db.execute("PRAGMA integrity_check").fetchone()[0]))
            _read_rows(db, seal, copy)
            copy.epochs = {(row[0], row[1]): Opened(*row[2:]) for row in db.execute(_EPOCHS)}
        except sqlite3.DatabaseError as error:
            return SpoolCopy(str(error))
    if copy.verdict == "ok":
        for suffix in ("", "-wal", "-shm"):
            Path(f"{path}{suffix}").unlink(missing_ok=True)
    return copy


def _read_rows(db: sqlite3.Connection, seal: Seal, copy: SpoolCopy) -> None:
    for values in db.execute(f"SELECT {schema.COLUMNS} FROM outbox ORDER BY id"):  # noqa: S608  (a constant)
        copy.sealed += bool(values[10])
        try:
            row = schema.read(values, seal)
        except schema.DamagedRow as error:
            copy.verdict = str(error)
            continue
        copy.rows.append(SpooledRow(row.kind, row.name, row.epoch, row.seq, zlib.crc32(row.record), row.lane))
