"""Which lane a frame may go on, so that each lane of a camera is in order."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from edge_agent.spool.schema import WAITS, Row

__all__ = ["OVERTAKEN", "mark_live", "passed_over"]

OVERTAKEN = "id <= coalesce((SELECT g.id FROM gone_live g WHERE g.name = outbox.name), 0)"
"""A frame that was kept after this one has gone live."""


def mark_live(db: sqlite3.Connection, rows: Sequence[Row]) -> None:
    """Remember how far each camera's live lane has come."""
    db.executemany(
        "INSERT INTO gone_live (name, id) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET id = excluded.id",
        [(row.name, row.id) for row in rows],
    )


def passed_over(db: sqlite3.Connection, late: Sequence[Row]) -> list[int]:
    """Return the frames, by id, that were kept before some that go late now, are not offered, and have time."""
    highest = {row.name: row.id for row in late}
    if not highest:
        return []
    before = f"kind = 'frame' AND lane = '{WAITS}' AND id < ? ORDER BY id"
    query = f"SELECT id, name FROM outbox INDEXED BY outbox_lane WHERE {before}"  # noqa: S608
    found = db.execute(query, (max(highest.values()),))
    return [row_id for row_id, name in found if row_id < highest.get(name, 0)]
