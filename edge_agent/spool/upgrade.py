"""A spool's file as an agent of before has left it, brought up to date in steps that each fit into little room."""

from __future__ import annotations

import sqlite3

from edge_agent.spool.schema import CREATE, INDEXES, PAGE_BYTES, WAITS, WAL_BYTES

__all__ = ["LATE_AFTER_NS", "VERSION", "upgrade"]

VERSION = 2
"""Of the tables, in the file's ``user_version``."""
LATE_AFTER_NS = 5_000_000_000
"""Of rows that an agent kept which had one limit for all cameras: the default."""
_AT_ONCE = 64
_INCREMENTAL = 2
_ADDED = {
    "late_ns": "ALTER TABLE outbox ADD COLUMN late_ns INTEGER NOT NULL DEFAULT 0",
    "key": "ALTER TABLE outbox ADD COLUMN key TEXT NOT NULL DEFAULT ''",
    "crc": "ALTER TABLE outbox ADD COLUMN crc INTEGER",
}
"""Columns that spools of before may not have."""


def upgrade(db: sqlite3.Connection) -> None:
    """Make the tables, or bring them up to date. A crash in between loses nothing: the next start goes on."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version < VERSION:
        _add_columns(db)
        for index in ("outbox_late", "outbox_depth", "outbox_key", "outbox_lane"):
            db.execute(f"DROP INDEX IF EXISTS {index}")
    db.executescript(CREATE + INDEXES)
    if version < VERSION:
        _name_lanes(db)
        db.execute(f"PRAGMA user_version = {VERSION}")
    _reshape(db)
    (page_bytes,) = db.execute("PRAGMA page_size").fetchone()
    db.execute(f"PRAGMA wal_autocheckpoint = {WAL_BYTES // page_bytes}").fetchall()


def _add_columns(db: sqlite3.Connection) -> None:
    found = {name for _, name, *_ in db.execute("PRAGMA table_info(outbox)")}
    missing = [name for name in _ADDED if found and name not in found]
    if missing:
        with db:
            for name in missing:
                db.execute(_ADDED[name])
            db.execute(f"UPDATE outbox SET late_ns = captured_ns + {LATE_AFTER_NS}")  # noqa: S608  (a constant)


def _name_lanes(db: sqlite3.Connection) -> None:
    """Give rows that were not offered the lane that says so: a row without one is written anew when it gets one."""
    nameless = "kind IN ('frame', 'readings', 'status') AND lane IS NULL"
    query = f"UPDATE outbox SET lane = ? WHERE id IN (SELECT id FROM outbox WHERE {nameless} LIMIT {_AT_ONCE})"  # noqa: S608
    more = True
    while more:
        with db:
            more = db.execute(query, (WAITS,)).rowcount > 0


def _reshape(db: sqlite3.Connection) -> None:
    """Make a file of before one that gives room back, in pages of now. While it is empty, this costs nothing."""
    (mode,), (page_bytes,) = db.execute("PRAGMA auto_vacuum").fetchone(), db.execute("PRAGMA page_size").fetchone()
    if (mode, page_bytes) == (_INCREMENTAL, PAGE_BYTES) or db.execute("SELECT 1 FROM outbox LIMIT 1").fetchone():
        return
    db.execute("PRAGMA journal_mode = DELETE").fetchall()  # a page keeps its size in WAL mode
    db.execute(f"PRAGMA page_size = {PAGE_BYTES}")
    db.execute("VACUUM")
    db.execute("PRAGMA journal_mode = WAL").fetchall()
