"""The spool's tables."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CREATE", "PARKED", "PRAGMAS", "Depth", "Kind", "Row"]

Kind = str
"""``frame``, ``readings`` or ``status``."""

PARKED = "parked"
"""The lane of a row that the link refuses for good. It stays until it expires."""

PRAGMAS = (
    "PRAGMA auto_vacuum = INCREMENTAL",  # the first of all: a file that has a page keeps what it has
    "PRAGMA journal_mode = WAL",
    # A frame is promised when its row is committed. In WAL mode, NORMAL may lose the last commits in a power cut:
    # FULL syncs each commit, and commits are of whole groups of frames.
    "PRAGMA synchronous = FULL",
    # Some builds overwrite what is deleted: sending a frame would write as much as keeping it, and need as much room
    # on a full disk. Whoever must not read deleted pictures must not read the others either: keys are for that.
    "PRAGMA secure_delete = OFF",
    "PRAGMA wal_autocheckpoint = 1000",
    "PRAGMA journal_size_limit = 16777216",
    "PRAGMA cache_size = -2000",  # 2 MB: rows are written once and read once
)

CREATE = """
CREATE TABLE IF NOT EXISTS outbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    captured_ns INTEGER NOT NULL,
    lane TEXT,
    size INTEGER NOT NULL,
    traceparent TEXT NOT NULL,
    account TEXT NOT NULL,
    record BLOB NOT NULL,
    late_ns INTEGER NOT NULL DEFAULT 0,
    key TEXT NOT NULL DEFAULT '',
    crc INTEGER
);
CREATE INDEX IF NOT EXISTS outbox_lane ON outbox (kind, lane, id);
CREATE INDEX IF NOT EXISTS outbox_late ON outbox (kind, lane, late_ns);
CREATE INDEX IF NOT EXISTS outbox_depth ON outbox (kind, name, epoch, id, seq, size);
CREATE INDEX IF NOT EXISTS outbox_key ON outbox (key);
CREATE TABLE IF NOT EXISTS gone_live (
    name TEXT PRIMARY KEY,
    id INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS epochs (
    name TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    kind TEXT NOT NULL,
    last_kept INTEGER NOT NULL DEFAULT -1,
    told INTEGER NOT NULL DEFAULT -1,
    ended INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (name, epoch)
);
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One record that waits for the link. ``lane`` is None until it is first offered; ``id`` 0 until it is kept.

    ``account`` is the account of the frames withheld before it, as its header has it. Of readings, ``seq`` is the
    last one's number, and the record itself has the account.
    """

    kind: Kind
    name: str
    epoch: int
    seq: int
    captured_ns: int
    record: bytes
    traceparent: str = ""
    account: str = ""
    lane: str | None = None
    id: int = 0

    @property
    def size(self) -> int:
        """Bytes of the record."""
        return len(self.record)

    @property
    def identity(self) -> bytes:
        """What no other row has, to bind the record to it."""
        return f"{self.kind}/{self.name}/{self.epoch}/{self.seq}".encode()


@dataclass(frozen=True, slots=True)
class Depth:
    """What of one epoch waits: frames and their bytes, in an interval with what was withheld among them.

    Of a sensor, ``frames`` are records of readings.
    """

    name: str
    epoch: int
    first: int
    last: int
    frames: int
    bytes: int
