"""The spool's tables."""

from __future__ import annotations

from dataclasses import dataclass

Kind = str
"""``frame``, ``readings`` or ``status``."""

WAITS = "wait"
"""The lane of a row that was never offered. As wide as those that follow on it: SQLite writes a row anew, with its
picture, when it grows, and only the page that holds the lane when it does not."""

PARKED = "parked"
"""The lane of a row that the link refuses for good. It stays until it expires."""

PAGE_BYTES = 1024
"""Each commit touches some ten pages beside the picture, of indexes mostly, and writes each of them whole: with pages
of 4096 bytes, all of a frame's commits took twice what a picture of 40 kB does. Like the write-ahead log itself, it
relies on a disk that does not harm what is beside the bytes that it was writing when the power went."""
WAL_BYTES = 4 * 1024 * 1024
"""The write-ahead log is written back when it has come so far; a full disk has to take that much."""

PRAGMAS = (
    f"PRAGMA page_size = {PAGE_BYTES}",
    "PRAGMA auto_vacuum = INCREMENTAL",  # the first of all: a file that has a page keeps what it has
    "PRAGMA journal_mode = WAL",
    # A frame is promised when its row is committed. In WAL mode, NORMAL may lose the last commits in a power cut:
    # FULL syncs each commit, and commits are of whole groups of frames.
    "PRAGMA synchronous = FULL",
    # Some builds overwrite what is deleted: sending a frame would write as much as keeping it, and need as much room
    # on a full disk. Whoever must not read deleted pictures must not read the others either: keys are for that.
    "PRAGMA secure_delete = OFF",
    "PRAGMA journal_size_limit = 16777216",
    "PRAGMA cache_size = -2000",  # 2 MB: rows are written once and read once
    "PRAGMA temp_store = MEMORY",  # where an agent may write nothing but its folder, an index is made without a file
)

INDEXES = f"""
CREATE INDEX IF NOT EXISTS outbox_lane ON outbox (kind, lane, id, name);
CREATE INDEX IF NOT EXISTS outbox_late ON outbox (late_ns) WHERE kind = 'frame' AND lane = '{WAITS}';
CREATE INDEX IF NOT EXISTS outbox_depth ON outbox (kind, name, epoch, id, seq, size, key);
"""
"""Each is another page in each commit: what is asked rarely goes with what there is."""

CREATE = """
CREATE TABLE IF NOT EXISTS outbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    lane TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    captured_ns INTEGER NOT NULL,
    late_ns INTEGER NOT NULL,
    size INTEGER NOT NULL,
    crc INTEGER,
    name TEXT NOT NULL,
    key TEXT NOT NULL,
    traceparent TEXT NOT NULL,
    account TEXT NOT NULL,
    record BLOB NOT NULL  -- the last: what follows on a picture is found at the end of all its pages
);
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
    """One record that waits for the link. ``lane`` is ``WAITS`` until it is first offered; ``id`` 0 until it is kept.

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
    lane: str = WAITS
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
