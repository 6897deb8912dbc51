"""Which lane a frame may go on, so that each lane of a camera is in order."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Sequence

from edge_agent.spool.schema import WAITS, Row

OVERTAKEN = "id <= coalesce((SELECT g.id FROM gone_live g WHERE g.name = outbox.name), 0)"
"""A frame that was kept after this one has gone live."""
_WAITING = f"SELECT id, name FROM outbox INDEXED BY outbox_lane WHERE kind = 'frame' AND lane = '{WAITS}'"  # noqa: S608
_LATE = f"{_WAITING} AND (late_ns < ? OR {OVERTAKEN}) ORDER BY id LIMIT ?"
_BEFORE = f"{_WAITING} AND id < ? ORDER BY id"


def mark_live(db: sqlite3.Connection, rows: Sequence[Row]) -> None:
    """Remember how far each camera's live lane has come."""
    db.executemany(
        "INSERT INTO gone_live (name, id) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET id = excluded.id",
        [(row.name, row.id) for row in rows],
    )


def late_by(db: sqlite3.Connection, now_ns: int, limit: int) -> list[int]:
    """Return the oldest frames, by id and in order, that go late now: up to so many, however many there are.

    With those that are late by now go frames of their cameras that were kept before them, and have time.
    """
    found: list[tuple[int, str]] = db.execute(_LATE, (now_ns, limit)).fetchall()
    highest = {name: row_id for row_id, name in found}
    if not found:
        return []
    before = (row_id for row_id, name in db.execute(_BEFORE, (found[-1][0],)) if row_id < highest.get(name, 0))
    return sorted({*(row_id for row_id, _ in found), *itertools.islice(before, limit)})[:limit]
