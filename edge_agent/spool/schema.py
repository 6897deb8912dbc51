"""Rows of the spool, its SQL tables, and the conversion of rows to table values with encryption and checksum."""

from __future__ import annotations

import dataclasses
import sqlite3
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from edge_agent.spool.seal import Seal

Kind = str
"""Kind of a row: ``frame``, ``readings`` or ``status``."""

SCHEMA_VERSION = 2
"""Version of the spool's SQL tables, stored in the file's ``user_version``."""

WAITS = "wait"
"""Value of column ``lane`` for a row that the agent has not tried to send. The word is as long as ``live`` and
``late``, so that a row keeps its size when ``lane`` changes. If a row grows, SQLite rewrites the whole row with its
picture. If a row keeps its size, SQLite rewrites only one page."""

PARKED = "parked"
"""Value of column ``lane`` for a row that Kafka or the gateway refuses permanently. A parked row stays in the spool
until the row expires."""

PAGE_BYTES = 1024
"""Page size of the SQLite file, in bytes. In addition to the picture, each commit writes about ten whole pages,
mostly of indexes. With pages of 4096 bytes, the commits for a frame with a 40 kB picture wrote 80 kB. Pages smaller
than a disk sector are safe only if a power failure during a write does not damage neighbouring bytes. SQLite's
write-ahead log also assumes that a power failure during a write does not damage neighbouring bytes."""
WAL_BYTES = 6 * 1024 * 1024
"""Size in bytes of the write-ahead log at which SQLite writes the log back into the database. The write-ahead log
needs up to this many bytes of free disk space, and the smallest reserve file has 8 MiB. The larger the log, the more
pages of deleted rows are used again before they are written back."""

PRAGMAS = (
    f"PRAGMA page_size = {PAGE_BYTES}",
    "PRAGMA auto_vacuum = INCREMENTAL",  # set before the first page: an existing file keeps its mode
    "PRAGMA journal_mode = WAL",
    # A frame is promised when its row is committed. In WAL mode, NORMAL may lose the last commits in a power cut:
    # FULL syncs each commit, and one commit holds a whole group of frames.
    "PRAGMA synchronous = FULL",
    # Some builds of SQLite overwrite deleted rows. Deleting a sent frame would then write as many bytes as keeping
    # the frame, and need as much room on a full disk. Encryption protects deleted pictures as well as the others.
    "PRAGMA secure_delete = OFF",
    "PRAGMA journal_size_limit = 16777216",
    f"PRAGMA wal_autocheckpoint = {WAL_BYTES // PAGE_BYTES}",
    "PRAGMA cache_size = -4000",  # 4 MB: deleting a row reads its pages, and frames in flight have up to 4 MiB
    "PRAGMA temp_store = MEMORY",  # an agent may be able to write only to its own folder
)

CREATE = f"""
BEGIN;
CREATE TABLE outbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    lane TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    captured_ns INTEGER NOT NULL,
    late_ns INTEGER NOT NULL,
    size INTEGER NOT NULL,
    crc INTEGER NOT NULL,
    name TEXT NOT NULL,
    key TEXT NOT NULL,
    traceparent TEXT NOT NULL,
    account TEXT NOT NULL,
    record BLOB NOT NULL  -- last: SQLite walks all pages of a picture to reach a column behind it
);
CREATE TABLE gone_live (
    name TEXT PRIMARY KEY,
    id INTEGER NOT NULL
);
CREATE TABLE epochs (
    name TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    kind TEXT NOT NULL,
    last_kept INTEGER NOT NULL DEFAULT -1,
    told INTEGER NOT NULL DEFAULT -1,
    ended INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (name, epoch)
);
CREATE INDEX outbox_lane ON outbox (kind, lane, id, name);
CREATE INDEX outbox_late ON outbox (late_ns) WHERE kind = 'frame' AND lane = '{WAITS}';
CREATE INDEX outbox_depth ON outbox (kind, name, epoch, id, seq, size, key);
PRAGMA user_version = {SCHEMA_VERSION};
COMMIT;
"""
"""SQL that creates all tables in one transaction. Each index adds a page to each commit. To save pages, queries that
seldom run share an index."""

COLUMNS = "kind, name, epoch, seq, captured_ns, record, traceparent, account, lane, id, key, crc"
WITHOUT_PICTURES = COLUMNS.replace(" record", " CASE kind WHEN 'frame' THEN NULL ELSE record END")
"""SQL columns of a row, with NULL instead of the record of a frame. The record of readings is included, because only
the record holds the first sequence number."""

_INSERT = (
    "INSERT INTO outbox"
    " (kind, name, epoch, seq, captured_ns, late_ns, lane, size, traceparent, account, record, key, crc)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_KEPT = "UPDATE epochs SET last_kept = max(last_kept, ?) WHERE name = ? AND epoch = ?"


@dataclass(frozen=True, slots=True)
class Row:
    """Row of the spool: one record that waits to be sent over the link.

    ``lane`` is ``WAITS`` until the agent first tries to send the row. ``id`` is 0 until the row is stored. In a row
    of a frame, ``account`` has the number of frames withheld directly before it, by reason, in the format of the
    record header. In a row of readings, ``seq`` is the sequence number of the last reading, and the record itself
    counts the readings withheld before it.
    """

    kind: Kind
    name: str
    epoch: int
    seq: int
    captured_ns: int
    record: bytes
    traceparent: str = ""
    account: str = ""
    lane: str = WAITS
    id: int = 0

    @property
    def size(self) -> int:
        """Size of the record in bytes."""
        return len(self.record)

    @property
    def identity(self) -> bytes:
        """Kind, name, epoch and sequence number, which identify the row.

        The cipher authenticates the identity together with the record, so that a record cannot be moved to another
        row.
        """
        return f"{self.kind}/{self.name}/{self.epoch}/{self.seq}".encode()


@dataclass(frozen=True, slots=True)
class Depth:
    """Waiting rows of one epoch (capture run): number, bytes, and first and last sequence number, withheld numbers
    included.

    For a sensor, ``frames`` is the number of records of readings.
    """

    name: str
    epoch: int
    first: int
    last: int
    frames: int
    bytes: int


class DamagedRow(Exception):
    """The checksum shows that a stored row has changed.

    SQLite checks the structure of pages, but not the stored values.
    """


def insert(db: sqlite3.Connection, rows: Sequence[Row], seal: Seal, late_ns: Callable[[Row], int]) -> list[Row]:
    """Encrypt and insert rows, and return the rows with their ids.

    ``late_ns`` returns the Unix time in ns after which a row counts as late.
    """
    stored: list[Row] = []
    for row in rows:
        kept = dataclasses.replace(row, record=seal.close(row.record, row.identity)) if seal.key_id else row
        fields = (kept.kind, kept.name, kept.epoch, kept.seq, kept.captured_ns, late_ns(row), kept.lane, kept.size)
        sealed = (kept.traceparent, kept.account, kept.record, seal.key_id, checksum(kept, seal.key_id))
        row_id = db.execute(_INSERT, (*fields, *sealed)).lastrowid
        stored.append(dataclasses.replace(row, id=row_id or 0))
    last = {(row.name, row.epoch): row.seq for row in rows if row.kind != "status"}
    db.executemany(_KEPT, [(seq, name, epoch) for (name, epoch), seq in last.items()])
    return stored


def read(values: Iterable[Any], seal: Seal) -> Row:
    """Return the row made from a query result with the columns ``COLUMNS``. Raise DamagedRow.

    If the columns are ``WITHOUT_PICTURES``, the row of a frame gets an empty record, and its checksum is not
    verified.
    """
    *fields, key, crc = values
    if fields[5] is None:
        fields[5] = b""
        return Row(*fields)
    row = Row(*fields)
    if crc != checksum(row, key):
        raise DamagedRow(
            f"spool row {row.id}, {row.identity.decode(errors='replace')}, is damaged: its checksum is wrong"
        )
    if not key:
        return row
    try:
        record = seal.open(row.record, row.identity, key)
    except ValueError as error:
        raise DamagedRow(f"row {row.id}, {row.identity.decode(errors='replace')}: {error}") from None
    return dataclasses.replace(row, record=record)


def checksum(row: Row, key: str) -> int:
    """Return the CRC-32 of a row whose record is encrypted with the key named ``key``.

    The checksum leaves out ``lane``, because the value of ``lane`` changes when the row is sent.
    """
    head = f"{row.captured_ns} {row.traceparent} {row.account} ".encode() + row.identity + key.encode()
    return zlib.crc32(row.record, zlib.crc32(head))
