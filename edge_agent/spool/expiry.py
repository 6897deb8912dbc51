"""Deletion of the oldest rows of a full spool, and the intervals of sequence numbers that report the deleted rows.

Rows that the agent has tried to send never expire, because Kafka may have them already.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from edge_agent.spool.schema import PARKED, WAITS, WITHOUT_PICTURES, Kind, Row, read
from edge_agent.spool.seal import Seal
from ingest.contract import headers as h
from ingest.contract.codec import decode
from ingest.contract.identity import FrameId
from ingest.contract.records import Readings, WithheldInterval

EXPIRED_AT_ONCE = 1000
"""Maximum number of rows that one transaction expires. A transaction that expires more rows would delay new frames,
which wait until the transaction ends."""

_MAY_EXPIRE = (WAITS, PARKED)
_OF_ONE = (
    f"SELECT {WITHOUT_PICTURES}, size FROM outbox INDEXED BY outbox_depth"  # noqa: S608  (constants)
    f" WHERE kind = ?1 AND name = ?2 AND lane IN {_MAY_EXPIRE} ORDER BY epoch, id LIMIT {EXPIRED_AT_ONCE}"
)
_ORDER = (
    ("frame", "name NOT IN (SELECT value FROM json_each(?2))"),
    ("readings", "?2 IS NOT NULL"),
    ("frame", "name IN (SELECT value FROM json_each(?2))"),
)
"""Kinds of rows in the order of their expiry: frames, then readings, then frames of cameras that are configured as
evidence cameras. Frames expire before readings, because frames are larger and more numerous."""


@dataclass
class Expired:
    """Expired rows: their number by camera or sensor name, and their intervals of sequence numbers by row kind."""

    by_name: Counter[str] = field(default_factory=Counter)
    accounts: dict[Kind, list[WithheldInterval]] = field(default_factory=dict)


def expire_one(db: sqlite3.Connection, seal: Seal, kind: Kind, name: str, max_bytes: int, oldest_ns: int) -> Expired:
    """Delete the oldest rows of one camera or sensor until all rows are within ``max_bytes`` and ``oldest_ns``."""
    (total,) = db.execute(
        "SELECT coalesce(sum(bytes), 0) FROM counts WHERE kind = ? AND name = ?", (kind, name)
    ).fetchone()
    rows: list[Row] = []
    for row, size in _candidates(db, seal, _OF_ONE, kind, name):
        if total <= max_bytes and row.captured_ns >= oldest_ns:
            break
        total -= size
        rows.append(row)
    expired = Expired()
    _delete(db, kind, rows, expired)
    return expired


def expire_all(db: sqlite3.Connection, seal: Seal, excess_bytes: int, evidence: Sequence[str]) -> Expired:
    """Delete the oldest rows of all cameras and sensors, in the order of ``_ORDER``, to free ``excess_bytes``."""
    expired, count = Expired(), 0
    for kind, condition in _ORDER:
        rows: list[Row] = []
        for row, size in _candidates(db, seal, _of_all(condition), kind, json.dumps(list(evidence))):
            if excess_bytes <= 0 or count == EXPIRED_AT_ONCE:
                break
            excess_bytes, count = excess_bytes - size, count + 1
            rows.append(row)
        _delete(db, kind, rows, expired)
    return expired


def expired_account(row: Row) -> WithheldInterval:
    """Return the interval of sequence numbers of an expired row and of the items withheld directly before the row."""
    first, last, before = _numbers(row)
    counts = Counter(before.counts if before else {})
    counts["expired"] += last - first + 1
    first = before.first if before else first
    return WithheldInterval(camera=row.name, epoch=row.epoch, first=first, last=last, counts=dict(counts))


def merged(accounts: Iterable[WithheldInterval | None]) -> list[WithheldInterval]:
    """Merge intervals whose sequence numbers are adjacent. Skip entries that are None."""
    joined: list[WithheldInterval] = []
    for account in filter(None, accounts):
        last = joined[-1] if joined else None
        if last and (last.camera, last.epoch, last.last + 1) == (account.camera, account.epoch, account.first):
            counts = Counter(last.counts) + Counter(account.counts)
            joined[-1] = last.model_copy(update={"last": account.last, "counts": dict(counts)})
        else:
            joined.append(account)
    return joined


def _of_all(condition: str) -> str:
    """Return the SQL query for the rows of all cameras or sensors that meet ``condition`` and may expire.

    The query has one SELECT for each value of ``lane``, so that SQLite reads the rows in index order without a sort.
    """
    lanes = " UNION ALL ".join(
        f"SELECT {WITHOUT_PICTURES}, size FROM outbox INDEXED BY outbox_lane"  # noqa: S608  (constants)
        f" WHERE kind = ?1 AND lane = '{lane}' AND {condition}"
        for lane in _MAY_EXPIRE
    )
    return f"{lanes} ORDER BY id LIMIT {EXPIRED_AT_ONCE}"


def _candidates(db: sqlite3.Connection, seal: Seal, query: str, *values: object) -> Iterator[tuple[Row, int]]:
    """Yield rows that may expire, oldest first.

    Each item is a row without its picture, and the size of the stored record in bytes.
    """
    for *columns, size in db.execute(query, values):
        yield read(columns, seal), size


def _delete(db: sqlite3.Connection, kind: Kind, rows: list[Row], expired: Expired) -> None:
    if not rows:
        return
    db.executemany("DELETE FROM outbox WHERE id = ?", [(row.id,) for row in rows])
    in_order = sorted(rows, key=lambda row: (row.name, row.epoch, row.id))
    expired.by_name.update(row.name for row in rows)
    expired.accounts[kind] = expired.accounts.get(kind, []) + merged(map(expired_account, in_order))


def _numbers(row: Row) -> tuple[int, int, WithheldInterval | None]:
    """Return the first and last sequence number of a row, and the interval of the numbers withheld before the row."""
    if row.kind == "readings":
        readings = decode(Readings, row.record)
        return readings.seq, readings.last_seq, readings.account
    before = h.account_of({h.ACCOUNT: row.account.encode()}, FrameId(row.name, row.epoch, row.seq))
    return row.seq, row.seq, before
