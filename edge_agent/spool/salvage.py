"""Recovery of a damaged spool: each row that is still readable is copied into a new file.

SQLite stops a query at the first damaged page. The salvage queries ranges of row ids, and halves a range with a
damaged page until each unreadable row is isolated. The checksum of a row shows whether the row has changed since it
was written.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_agent.spool.file import connect, exchange, is_damaged_page, prepare, salvaged
from edge_agent.spool.schema import COLUMNS, Row, checksum

MAX_ID = 1 << 40
"""Highest row id to search. A spool that stores ten thousand rows a second reaches this id after three years."""
SKIPPED_IDS = 1_000_000
"""Number of row ids to skip above the highest id found, if SQLite's table of used ids is damaged. The gap prevents
the spool from giving the id of a lost row to a new row."""
MAX_FAILURES = 200_000
"""Number of failed queries after which the salvage stops and gives up the rest of the file. Each failed query takes
about 20 µs."""
_AT_ONCE = 64
_COLUMNS = f"{COLUMNS}, late_ns, size"
_MAX_NAMES = 10


@dataclass(frozen=True, slots=True)
class LostRows:
    """Lost rows that were committed: camera or sensor, epoch (capture run), and first and last sequence number."""

    name: str
    epoch: int
    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.name}/{self.epoch}/{self.first}..{self.last}"


@dataclass(frozen=True, slots=True)
class Recovery:
    """Result of a salvage: the damaged file's new path, the number of rows saved, and the rows known to be lost.

    ``complete`` is true if the whole table index was readable, so that ``lost`` has every lost row.
    """

    aside: Path
    rows: int
    lost: tuple[LostRows, ...]
    complete: bool

    def __str__(self) -> str:
        named = ", ".join(map(str, self.lost[:_MAX_NAMES])) or "none known"
        more = f" and {len(self.lost) - _MAX_NAMES} more" if len(self.lost) > _MAX_NAMES else ""
        unsure = "" if self.complete else "; other rows may be lost, because the index was damaged too"
        saved = f"spool was damaged: {self.rows} rows saved, lost {named}{more}{unsure}"
        return f"{saved}; the damaged file is {self.aside.name}"


def salvage(path: Path) -> Recovery:
    """Replace a damaged file with a new one that holds its readable rows. Raise sqlite3.Error or OSError."""
    target = salvaged(path)
    for suffix in ("", "-wal", "-shm"):
        Path(f"{target}{suffix}").unlink(missing_ok=True)
    new = connect(target)
    old = sqlite3.connect(path, isolation_level=None)
    try:
        old.execute("PRAGMA writable_schema = ON")  # accept a damaged index definition: the rows may be intact
        prepare(new, target)
        index, complete = _index(old)
        saved = _copy_rows(old, new)
        _copy_rest(old, new, index)
        new.execute("PRAGMA journal_mode = DELETE").fetchall()  # no -wal and -shm files: one rename moves all data
    finally:
        old.close()
        new.close()
    lost = _joined(sorted(entry for row_id, entry in index.items() if row_id not in saved))
    return Recovery(exchange(path), len(saved), lost, complete)


def _copy_rows(old: sqlite3.Connection, new: sqlite3.Connection) -> set[int]:
    """Copy the intact rows into the new file. Return the ids of the copied rows."""
    sequence = _all(old, "SELECT seq FROM sqlite_sequence WHERE name = 'outbox'")
    highest = int(sequence[0][0]) if sequence else MAX_ID
    saved: set[int] = set()
    batch: list[tuple[Any, ...]] = []

    def write() -> None:
        marks = ", ".join("?" * len(_COLUMNS.split(", ")))
        with new:
            new.executemany(f"INSERT OR IGNORE INTO outbox ({_COLUMNS}) VALUES ({marks})", batch)  # noqa: S608
        batch.clear()

    for values in _readable(old, 1, highest):
        if _is_intact(values):
            batch.append(values)
            saved.add(values[9])
        if len(batch) == _AT_ONCE:
            write()
    write()
    return saved


def _readable(db: sqlite3.Connection, first: int, last: int) -> Iterator[tuple[Any, ...]]:
    """Yield the readable rows with an id from ``first`` to ``last``, in the order of ids."""
    ranges, failures = [(first, last)], 0
    query = f"SELECT {_COLUMNS} FROM outbox NOT INDEXED WHERE id BETWEEN ? AND ? ORDER BY id"  # noqa: S608
    while ranges and failures < MAX_FAILURES:
        low, high = ranges.pop()
        try:
            for values in db.execute(query, (low, high)):
                yield values
                low = values[9] + 1
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            if isinstance(error, sqlite3.DatabaseError) and not is_damaged_page(error):
                return  # no table, or no database: no row is left
            failures += 1
            middle = (low + high) // 2
            if low < high:
                ranges += [(middle + 1, high), (low, middle)]


def _is_intact(values: tuple[Any, ...]) -> bool:
    try:
        *fields, key, crc = values[:12]
        row = Row(*fields)
        return isinstance(row.record, bytes) and bool(crc == checksum(row, key))
    except (TypeError, AttributeError):
        return False


def _copy_rest(old: sqlite3.Connection, new: sqlite3.Connection, index: dict[int, tuple[str, int, int, str]]) -> None:
    """Copy the table of epochs (capture runs), and the table with the id of the newest row that each camera sent
    live.

    If a camera or sensor has no readable epoch, the function adds the newest epoch found in its rows, so that new
    epochs get larger numbers. An epoch that this function adds gets no end record, so the ledger reports that the
    epoch never ended. If the newest live row of a camera is unknown, the agent sends all rows of that camera as late
    frames, to keep their order.
    """
    epochs = _all(old, "SELECT name, epoch, kind, last_kept, told, ended FROM epochs")
    marks = _all(old, "SELECT name, id FROM gone_live")
    sequence = _all(old, "SELECT seq FROM sqlite_sequence WHERE name = 'outbox'")
    (highest,) = new.execute("SELECT coalesce(max(id), 0) FROM outbox").fetchone()
    highest = max([highest, *index, *(id_ for _, id_ in marks or ())])
    with new:
        if marks is None:
            marks = new.execute("SELECT name, max(id) FROM outbox WHERE kind = 'frame' GROUP BY name").fetchall()
        new.executemany("INSERT OR IGNORE INTO gone_live (name, id) VALUES (?, ?)", marks)
        new.executemany("INSERT OR IGNORE INTO epochs VALUES (?, ?, ?, ?, ?, ?)", epochs or ())
        new.execute(
            "INSERT OR IGNORE INTO epochs (name, epoch, kind, last_kept, ended)"
            " SELECT name, max(epoch), kind, max(seq), 1 FROM outbox WHERE kind != 'status'"
            " AND name NOT IN (SELECT name FROM epochs) GROUP BY name, kind"
        )
        given = sequence[0][0] if sequence else highest + SKIPPED_IDS
        new.execute("DELETE FROM sqlite_sequence WHERE name = 'outbox'")
        new.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('outbox', ?)", (max(highest, given),))


def _index(db: sqlite3.Connection) -> tuple[dict[int, tuple[str, int, int, str]], bool]:
    """Return a map from row id to (name, epoch, seq, kind), and whether the whole table index was readable.

    The map has the frames and readings in the readable part of the table index.
    """
    found: dict[int, tuple[str, int, int, str]] = {}
    complete = True
    for order in ("", " DESC"):
        columns = ", ".join(f"{name}{order}" for name in ("kind", "name", "epoch", "id"))
        query = (
            "SELECT id, name, epoch, seq, kind FROM outbox INDEXED BY outbox_depth"  # noqa: S608
            f" WHERE kind IN ('frame', 'readings') ORDER BY {columns}"
        )
        try:
            for row_id, *entry in db.execute(query):
                found[row_id] = tuple(entry)
        except (sqlite3.DatabaseError, TypeError):
            complete = False
    return found, complete


def _joined(entries: list[tuple[str, int, int, str]]) -> tuple[LostRows, ...]:
    lost: list[LostRows] = []
    for name, epoch, seq, _ in entries:
        last = lost[-1] if lost else None
        if last and (last.name, last.epoch, last.last + 1) == (name, epoch, seq):
            lost[-1] = LostRows(name, epoch, last.first, seq)
        else:
            lost.append(LostRows(name, epoch, seq, seq))
    return tuple(lost)


def _all(db: sqlite3.Connection, query: str) -> list[tuple[Any, ...]] | None:
    with contextlib.suppress(sqlite3.DatabaseError):
        return db.execute(query).fetchall()
    return None
