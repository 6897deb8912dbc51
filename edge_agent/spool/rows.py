"""Rows into the table and out of it: sealed, and with a checksum that tells a damaged one."""

from __future__ import annotations

import dataclasses
import sqlite3
import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from edge_agent.spool.schema import Row
from edge_agent.spool.seal import Seal

COLUMNS = "kind, name, epoch, seq, captured_ns, record, traceparent, account, lane, id, key, crc"
WITHOUT_PICTURES = COLUMNS.replace(" record", " CASE kind WHEN 'frame' THEN NULL ELSE record END")
"""A frame's number is beside it; only a record of readings itself knows how many they are, and it is small."""

_INSERT = (
    "INSERT INTO outbox"
    " (kind, name, epoch, seq, captured_ns, late_ns, lane, size, traceparent, account, record, key, crc)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_KEPT = "UPDATE epochs SET last_kept = max(last_kept, ?) WHERE name = ? AND epoch = ?"


class Damaged(Exception):
    """A row is not as it was written. SQLite checks its own pages' structure, and not what they hold."""


def insert(db: sqlite3.Connection, rows: Sequence[Row], seal: Seal, late_ns: Callable[[Row], int]) -> None:
    """Insert rows, sealed. ``late_ns`` says from when on, in Unix ns, a row belongs on the late lane."""
    db.executemany(_INSERT, (_values(row, seal, late_ns(row)) for row in rows))
    db.executemany(_KEPT, [(row.seq, row.name, row.epoch) for row in rows if row.kind != "status"])


def read(values: Iterable[Any], seal: Seal) -> Row:
    """Return a row as it was kept, from ``COLUMNS``. Raise Damaged.

    From ``WITHOUT_PICTURES``, a frame has an empty record, and nothing is checked.
    """
    *fields, key, crc = values
    if fields[5] is None:
        fields[5] = b""
        return Row(*fields)
    row = Row(*fields)
    if not is_whole(row, key, crc):
        raise Damaged(f"row {row.id}, {row.identity.decode(errors='replace')}, is damaged")
    if not key:
        return row
    try:
        record = seal.open(row.record, row.identity, key)
    except ValueError:
        raise Damaged(f"row {row.id}, {row.identity.decode(errors='replace')}, is not what was sealed") from None
    return dataclasses.replace(row, record=record)


def is_whole(row: Row, key: str, crc: int | None) -> bool:
    """Tell whether a row, with its record as it is kept, is what was written. Spools of before left the key out."""
    return crc is None or crc in (checksum(row, key), checksum(row))


def checksum(row: Row, key: str = "") -> int:
    """Return the CRC-32 of a row whose record is as it is kept, under a key, without what may change."""
    head = f"{row.captured_ns} {row.traceparent} {row.account} ".encode() + row.identity + key.encode()
    return zlib.crc32(row.record, zlib.crc32(head))


def _values(row: Row, seal: Seal, late_ns: int) -> tuple[Any, ...]:
    kept = dataclasses.replace(row, record=seal.close(row.record, row.identity))
    fields = (kept.kind, kept.name, kept.epoch, kept.seq, kept.captured_ns, late_ns, kept.lane, kept.size)
    return (*fields, kept.traceparent, kept.account, kept.record, seal.key_id, checksum(kept, seal.key_id))
