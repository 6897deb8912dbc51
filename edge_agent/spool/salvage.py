"""What can still be read of a damaged spool, row by row, into a new one.

SQLite stops at the first damaged page that a query meets. So ranges of ids are halved until what cannot be read is
alone, and each row's checksum tells whether what was read is what was written.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge_agent.spool.opening import connect, exchange, is_damaged_page, salvaged
from edge_agent.spool.rows import COLUMNS, is_whole
from edge_agent.spool.schema import WAITS, Row
from edge_agent.spool.upgrade import LATE_AFTER_NS, upgrade

MAX_ID = 1 << 40
"""More rows than any spool has given out: ten thousand a second for three years."""
SKIPPED_IDS = 1_000_000
"""Where nothing says which ids were given, new ones begin so far beyond those that were found: none comes twice."""
MAX_FAILURES = 200_000
"""Ranges that could not be read, at some 20 µs each; a file of which so little is left is given up."""
_AT_ONCE = 64
_COLUMNS = f"{COLUMNS}, late_ns, size"
_INSTEAD = {"late_ns": f"captured_ns + {LATE_AFTER_NS}", "key": "''", "crc": "NULL"}
"""What stands for columns that spools of before do not have."""
_NAMES_TOLD = 10


@dataclass(frozen=True, slots=True)
class Lost:
    """Numbers of one camera or sensor that were promised, and are gone."""

    name: str
    epoch: int
    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.name}/{self.epoch}/{self.first}..{self.last}"


@dataclass(frozen=True, slots=True)
class Recovery:
    """What became of a damaged spool: rows that were saved, and those that are known to be lost.

    ``complete`` tells that the index of the rows could be read whole, so that nothing else is missing.
    """

    aside: Path
    rows: int
    lost: tuple[Lost, ...]
    complete: bool

    def __str__(self) -> str:
        named = ", ".join(map(str, self.lost[:_NAMES_TOLD])) or "none known"
        more = f" and {len(self.lost) - _NAMES_TOLD} more" if len(self.lost) > _NAMES_TOLD else ""
        unsure = "" if self.complete else "; there may be others, the index was damaged too"
        return f"spool was damaged: {self.rows} rows saved, lost {named}{more}{unsure}; the file is {self.aside.name}"


@dataclass
class _Found:
    saved: int = 0
    ids: set[int] = field(default_factory=set)


def salvage(path: Path) -> Recovery:
    """Build a new spool from what a damaged one still holds, in its place. Raise sqlite3.Error or OSError."""
    target = salvaged(path)
    for suffix in ("", "-wal", "-shm"):
        Path(f"{target}{suffix}").unlink(missing_ok=True)
    new = connect(target)
    old = sqlite3.connect(path, isolation_level=None)
    try:
        old.execute("PRAGMA writable_schema = ON")  # what says how an index is made may be damaged, and rows whole
        upgrade(new)
        index, complete = _index(old)
        found = _copy_rows(old, new, _bounds(old))
        _copy_rest(old, new, index)
        new.execute("PRAGMA journal_mode = DELETE").fetchall()  # one file, which a rename moves whole
    finally:
        old.close()
        new.close()
    lost = _joined(sorted(entry for row_id, entry in index.items() if row_id not in found.ids))
    return Recovery(exchange(path), found.saved, lost, complete)


def _bounds(old: sqlite3.Connection) -> tuple[int, int]:
    """Return the lowest and highest id that may be found."""
    sequence = _all(old, "SELECT seq FROM sqlite_sequence WHERE name = 'outbox'")
    return 1, int(sequence[0][0]) if sequence else MAX_ID


def _copy_rows(old: sqlite3.Connection, new: sqlite3.Connection, bounds: tuple[int, int]) -> _Found:
    found = _Found()
    batch: list[tuple[Any, ...]] = []

    def write() -> None:
        marks = ", ".join("?" * len(_COLUMNS.split(", ")))
        with new:
            new.executemany(f"INSERT OR IGNORE INTO outbox ({_COLUMNS}) VALUES ({marks})", batch)  # noqa: S608
        batch.clear()

    for values in _readable(old, *bounds):
        if _is_whole(values):
            batch.append(values)
            found.ids.add(values[9])
        if len(batch) == _AT_ONCE:
            write()
    write()
    found.saved = len(found.ids)
    return found


def _readable(db: sqlite3.Connection, first: int, last: int) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of a range of ids that can be read, in order."""
    ranges, failures = [(first, last)], 0
    query = f"SELECT {_present(db)} FROM outbox NOT INDEXED WHERE id BETWEEN ? AND ? ORDER BY id"  # noqa: S608
    while ranges and failures < MAX_FAILURES:
        low, high = ranges.pop()
        try:
            for values in db.execute(query, (low, high)):
                yield values
                low = values[9] + 1
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            if isinstance(error, sqlite3.DatabaseError) and not is_damaged_page(error):
                return  # there is no table, or no database: nothing is left
            failures += 1
            middle = (low + high) // 2
            if low < high:
                ranges += [(middle + 1, high), (low, middle)]


def _present(db: sqlite3.Connection) -> str:
    """Return the columns, with what stands for those that this file does not have."""
    found = {name for _, name, *_ in _all(db, "PRAGMA table_info(outbox)") or ()}
    columns = (_INSTEAD[name] if name in _INSTEAD and name not in found else name for name in _COLUMNS.split(", "))
    return ", ".join(f"coalesce(lane, '{WAITS}')" if name == "lane" else name for name in columns)


def _is_whole(values: tuple[Any, ...]) -> bool:
    try:
        *fields, key, crc = values[:12]
        row = Row(*fields)
        return isinstance(row.record, bytes) and is_whole(row, key, crc)
    except (TypeError, AttributeError):
        return False


def _copy_rest(old: sqlite3.Connection, new: sqlite3.Connection, index: dict[int, tuple[str, int, int, str]]) -> None:
    """Copy the epochs and the marks; where they cannot be read, what the rows say must do.

    An epoch that nothing is left of but rows is not ended here: the ledger sees that it never was. New ones only have
    to go on upwards. Without its mark, a camera's rows all go late, for none of them may overtake what has gone live.
    """
    epochs = _all(old, "SELECT name, epoch, kind, last_kept, told, ended FROM epochs")
    marks = _all(old, "SELECT name, id FROM gone_live")
    sequence = _all(old, "SELECT seq FROM sqlite_sequence WHERE name = 'outbox'")
    highest = max([*index, *(id_ for _, id_ in marks or ()), *_column(new, "SELECT id FROM outbox")], default=0)
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
    """Return the frames and readings that there were, by id, as far as an index tells, and whether it tells all."""
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


def _joined(entries: list[tuple[str, int, int, str]]) -> tuple[Lost, ...]:
    lost: list[Lost] = []
    for name, epoch, seq, _ in entries:
        last = lost[-1] if lost else None
        if last and (last.name, last.epoch, last.last + 1) == (name, epoch, seq):
            lost[-1] = Lost(name, epoch, last.first, seq)
        else:
            lost.append(Lost(name, epoch, seq, seq))
    return tuple(lost)


def _all(db: sqlite3.Connection, query: str) -> list[tuple[Any, ...]] | None:
    with contextlib.suppress(sqlite3.DatabaseError):
        return db.execute(query).fetchall()
    return None


def _column(db: sqlite3.Connection, query: str) -> list[int]:
    return [value for (value,) in db.execute(query)]
