"""A spool's file as an agent of before has left it, brought up to date in steps that each fit into little room."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence

from edge_agent.spool.schema import CREATE, INDEXES, PAGE_BYTES, WAITS, WAL_BYTES
from ingest.runtime import logs

_log = logs.get("edge_agent.spool")

VERSION = 2
"""Of the tables, in the file's ``user_version``."""
LATE_AFTER_NS = 5_000_000_000
"""Of rows that an agent kept which had one limit for all cameras: the default."""
TELL_EVERY_S = 10.0
"""All of a long backlog is written anew, at what the disk takes: somebody waits for the agent to start."""
_AT_ONCE = 512
"""Rows in one transaction, each on a page of its own at the worst."""
_AT_ONCE_BYTES = 2 * 1024 * 1024
"""In one transaction, and in the write-ahead log: on a full disk there is no more room than was held back."""
_INCREMENTAL = 2
_ADDED = {
    "late_ns": "ALTER TABLE outbox ADD COLUMN late_ns INTEGER NOT NULL DEFAULT 0",
    "key": "ALTER TABLE outbox ADD COLUMN key TEXT NOT NULL DEFAULT ''",
    "crc": "ALTER TABLE outbox ADD COLUMN crc INTEGER",
}
"""Columns that spools of before may not have."""
_NAMELESS = (
    "SELECT id, coalesce(CAST(size AS INTEGER), 0) FROM outbox"  # noqa: S608  (a constant)
    f" WHERE kind IN ('frame', 'readings', 'status') AND lane IS NULL LIMIT {_AT_ONCE}"
)
_NAME = (
    f"UPDATE outbox SET lane = '{WAITS}',"  # noqa: S608  (constants)
    f" late_ns = CASE late_ns WHEN 0 THEN captured_ns + {LATE_AFTER_NS} ELSE late_ns END WHERE id = ?"
)


def upgrade(db: sqlite3.Connection, *, again: bool = False) -> None:
    """Make the tables, or bring them up to date. A crash in between loses nothing: the next start goes on.

    ``again`` tells that it was tried before, and said: a disk that takes nothing is tried every second.
    """
    (version,) = db.execute("PRAGMA user_version").fetchone()
    began_s = time.monotonic()
    of_before = version < VERSION and _holds_rows(db)
    if of_before and not again:
        _log.warning("spool of before: nothing is captured or sent until it is brought up to date")
    _make_tables(db, version)
    _name_lanes(db)
    if version < VERSION:
        db.execute(f"PRAGMA user_version = {VERSION}")
    if of_before:
        _log.info("spool is up to date", took_s=round(time.monotonic() - began_s, 1))
    _reshape(db)
    (page_bytes,) = db.execute("PRAGMA page_size").fetchone()
    db.execute(f"PRAGMA wal_autocheckpoint = {WAL_BYTES // page_bytes}").fetchall()


def _holds_rows(db: sqlite3.Connection) -> bool:
    there = db.execute("SELECT 1 FROM sqlite_master WHERE name = 'outbox'").fetchone()
    return bool(there and db.execute("SELECT 1 FROM outbox LIMIT 1").fetchone())


def _make_tables(db: sqlite3.Connection, version: int) -> None:
    if version < VERSION:
        found = {name for _, name, *_ in db.execute("PRAGMA table_info(outbox)")}
        for name in _ADDED:
            if found and name not in found:
                db.execute(_ADDED[name])
        for index in ("outbox_late", "outbox_depth", "outbox_key", "outbox_lane"):
            db.execute(f"DROP INDEX IF EXISTS {index}")
    db.executescript(CREATE + INDEXES)


def _name_lanes(db: sqlite3.Connection) -> None:
    """Give rows that were not offered the lane that says so: a row without one is written anew when it gets one.

    An agent of before that was put back for a while leaves such rows as well, in a file that is of now.
    """
    named, told_s = 0, time.monotonic()
    while rows := db.execute(_NAMELESS).fetchall():
        step = _step(rows)
        with db:
            db.executemany(_NAME, step)
        named += len(step)
        if time.monotonic() - told_s >= TELL_EVERY_S:
            told_s = time.monotonic()
            _log.info("spool is brought up to date", rows_done=named)


def _step(rows: Sequence[tuple[int, int]]) -> list[tuple[int]]:
    """Return the first of some rows, which are given with their sizes: as many as one transaction may have."""
    step, size = [(rows[0][0],)], rows[0][1]
    for row_id, row_size in rows[1:]:
        size += row_size
        if size > _AT_ONCE_BYTES:
            break
        step.append((row_id,))
    return step


def _reshape(db: sqlite3.Connection) -> None:
    """Make a file of before one that gives room back, in pages of now. While it is empty, this costs nothing."""
    (mode,), (page_bytes,) = db.execute("PRAGMA auto_vacuum").fetchone(), db.execute("PRAGMA page_size").fetchone()
    if (mode, page_bytes) == (_INCREMENTAL, PAGE_BYTES) or db.execute("SELECT 1 FROM outbox LIMIT 1").fetchone():
        return
    db.execute("PRAGMA journal_mode = DELETE").fetchall()  # a page keeps its size in WAL mode
    db.execute(f"PRAGMA page_size = {PAGE_BYTES}")
    db.execute("VACUUM")
    db.execute("PRAGMA journal_mode = WAL").fetchall()
