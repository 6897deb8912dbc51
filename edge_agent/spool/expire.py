"""What a full spool lets go, and in which order: never what was offered, for that may be in the log already."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from edge_agent.spool.expiry import expired_account, merged
from edge_agent.spool.rows import WITHOUT_PICTURES, read
from edge_agent.spool.schema import PARKED, WAITS, Kind, Row
from edge_agent.spool.seal import Seal
from ingest.contract.records import Account

EXPIRED_AT_ONCE = 1000
"""Frames that one transaction lets go: it is one of many on the disk's only thread, and cameras wait for theirs."""

_MAY_GO = (WAITS, PARKED)
_OF_ONE = (
    f"SELECT {WITHOUT_PICTURES}, size FROM outbox INDEXED BY outbox_depth"  # noqa: S608  (constants)
    f" WHERE kind = ?1 AND name = ?2 AND lane IN {_MAY_GO} ORDER BY epoch, id LIMIT {EXPIRED_AT_ONCE}"
)
_ORDER = (
    ("frame", "name NOT IN (SELECT value FROM json_each(?2))"),
    ("readings", "?2 IS NOT NULL"),
    ("frame", "name IN (SELECT value FROM json_each(?2))"),
)
"""Pictures first, since they are large and many; numbers are small. Evidence last."""


@dataclass
class Gone:
    """What has gone: how many by name, and the accounts by kind."""

    by_name: Counter[str] = field(default_factory=Counter)
    accounts: dict[Kind, list[Account]] = field(default_factory=dict)


def expire_one(db: sqlite3.Connection, seal: Seal, kind: Kind, name: str, max_bytes: int, oldest_ns: int) -> Gone:
    """Delete what of one camera or sensor is over its bounds, oldest first."""
    (total,) = db.execute(
        "SELECT coalesce(sum(bytes), 0) FROM counts WHERE kind = ? AND name = ?", (kind, name)
    ).fetchone()
    gone: list[Row] = []
    for row, size in _rows(db, seal, _OF_ONE, kind, name):
        if total <= max_bytes and row.captured_ns >= oldest_ns:
            break
        total -= size
        gone.append(row)
    found = Gone()
    _delete(db, kind, gone, found)
    return found


def expire_all(db: sqlite3.Connection, seal: Seal, excess_bytes: int, last: Sequence[str]) -> Gone:
    """Delete the oldest of all, in the stated order, until so many bytes have gone."""
    found, rows = Gone(), 0
    for kind, which in _ORDER:
        gone: list[Row] = []
        for row, size in _rows(db, seal, _of_all(which), kind, json.dumps(list(last))):
            if excess_bytes <= 0 or rows == EXPIRED_AT_ONCE:
                break
            excess_bytes, rows = excess_bytes - size, rows + 1
            gone.append(row)
        _delete(db, kind, gone, found)
    return found


def _of_all(which: str) -> str:
    """Return the query for rows of any name. It merges the lanes, each in an index's order, and sorts nothing."""
    lanes = " UNION ALL ".join(
        f"SELECT {WITHOUT_PICTURES}, size FROM outbox INDEXED BY outbox_lane"  # noqa: S608  (constants)
        f" WHERE kind = ?1 AND lane = '{lane}' AND {which}"
        for lane in _MAY_GO
    )
    return f"{lanes} ORDER BY id LIMIT {EXPIRED_AT_ONCE}"


def _rows(db: sqlite3.Connection, seal: Seal, query: str, *values: object) -> Iterator[tuple[Row, int]]:
    """Yield what may go, oldest first, without pictures but with its size."""
    for *found, size in db.execute(query, values):
        yield read(found, seal), size


def _delete(db: sqlite3.Connection, kind: Kind, gone: list[Row], found: Gone) -> None:
    if not gone:
        return
    db.executemany("DELETE FROM outbox WHERE id = ?", [(row.id,) for row in gone])
    in_order = sorted(gone, key=lambda row: (row.name, row.epoch, row.id))
    found.by_name.update(row.name for row in gone)
    found.accounts[kind] = found.accounts.get(kind, []) + merged([expired_account(row) for row in in_order])
