"""The spool: what an agent has promised to deliver, in SQLite, until Kafka has it."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from edge_agent.exceptions import SpoolError
from edge_agent.spool.expiry import expired_account, merged
from edge_agent.spool.schema import CREATE, PRAGMAS, Depth, Kind, Row
from ingest import logs
from ingest.identity import LATE, LIVE, next_epoch
from ingest.records import Account, EpochEnd

__all__ = ["EXPIRED_AT_ONCE", "Spool"]

_log = logs.get("edge_agent.spool")

EXPIRED_AT_ONCE = 1000
"""Frames that one transaction lets go: it is one of many on the disk's only thread, and cameras wait for theirs."""
_OVERTAKEN = "id <= coalesce((SELECT g.id FROM gone_live g WHERE g.name = outbox.name), 0)"
_COLUMNS = "kind, name, epoch, seq, captured_ns, record, traceparent, account, lane, id"
_WITHOUT_PICTURES = _COLUMNS.replace("record", "CASE kind WHEN 'frame' THEN x'' ELSE record END")
"""A frame's number is beside it; only a record of readings itself knows how many they are, and it is small."""


class Spool:
    """One SQLite file. Every method is one transaction and blocks on the disk; all belong to one thread.

    Raise SpoolError when the disk does not take it; nothing is half done then.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = self._open()

    def keep(self, rows: Sequence[Row]) -> None:
        """Promise rows: from the return of this call on they survive a crash and a power cut."""
        with self._transaction() as db:
            _insert(db, rows)

    def begin_epoch(self, name: str, kind: str, unix_time_s: int) -> int:
        """Return a new epoch for a camera or sensor, larger than all before it, and remember it."""
        with self._transaction() as db:
            (last,) = db.execute("SELECT max(epoch) FROM epochs WHERE name = ?", (name,)).fetchone()
            epoch = next_epoch(last, unix_time_s)
            db.execute("INSERT INTO epochs (name, epoch, kind) VALUES (?, ?, ?)", (name, epoch, kind))
            db.execute(
                "DELETE FROM epochs WHERE name = ? AND ended = 1 AND epoch < ?", (name, epoch)
            )  # only the last one is needed to go on upwards
        return epoch

    def tell(self, told: Iterable[tuple[str, int, int]]) -> None:
        """Remember the last sequence number that a heartbeat tells, as (name, epoch, seq)."""
        with self._transaction() as db:
            db.executemany(
                "UPDATE epochs SET told = max(told, ?) WHERE name = ? AND epoch = ?", [(s, n, e) for n, e, s in told]
            )

    def end_epoch(self, name: str, epoch: int, status: Sequence[Row]) -> None:
        """Mark an epoch as ended and keep what ``status`` is to say of it, together."""
        with self._transaction() as db:
            db.execute("UPDATE epochs SET ended = 1 WHERE name = ? AND epoch = ?", (name, epoch))
            _insert(db, status)

    def unfinished(self, kind: Kind = "frame") -> list[EpochEnd]:
        """Return how epochs ended that a kill left open: at their last kept frame or reading, and not cleanly."""
        with self._transaction() as db:
            found = db.execute(
                "SELECT name, epoch, last_kept, told FROM epochs WHERE ended = 0 AND kind = ?", (kind,)
            ).fetchall()
        return [EpochEnd(camera=n, epoch=e, last=last, clean=False, told=told) for n, e, last, told in found]

    def offered(self, lane: str, after_id: int, limit: int) -> list[Row]:
        """Return frames that have a lane already, in order: repeats of sends in doubt."""
        return self._rows("kind = 'frame' AND lane = ? AND id > ? ORDER BY id LIMIT ?", lane, after_id, limit)

    def settle_live(self, since_ns: int, limit: int) -> list[Row]:
        """Settle frames on the live lane and return them: never offered, captured since then, oldest first.

        They may be offered from now on, and will not expire. A frame that was kept before one that has gone live
        already goes late, whatever a clock that was set back makes of its age: each lane of a camera is in order.
        """
        young = f"INDEXED BY outbox_age WHERE captured_ns >= ? AND NOT {_OVERTAKEN}"  # a backlog is not searched
        return self._settle(young, LIVE, since_ns, limit)

    def settle_late(self, before_ns: int, limit: int) -> list[Row]:
        """Settle frames on the late lane and return them: never offered, captured before then, oldest first."""
        return self._settle(f"WHERE (captured_ns < ? OR {_OVERTAKEN})", LATE, before_ns, limit)

    def others(self, after_id: int, limit: int) -> list[Row]:
        """Return readings and status records, in order. They may be offered from now on, and will not expire."""
        found = f"SELECT {_COLUMNS} FROM outbox WHERE kind != 'frame' AND id > ? ORDER BY id LIMIT ?"  # noqa: S608
        with self._transaction() as db:
            rows = [Row(*values) for values in db.execute(found, (after_id, limit))]
            new = [(LIVE, row.id) for row in rows if row.kind == "readings" and row.lane is None]
            db.executemany("UPDATE outbox SET lane = ? WHERE id = ?", new)
        return rows

    def remove(self, ids: Sequence[int]) -> None:
        """Forget rows that Kafka has."""
        with self._transaction() as db:
            db.executemany("DELETE FROM outbox WHERE id = ?", [(i,) for i in ids])

    def expire(
        self,
        name: str,
        max_bytes: int,
        oldest_ns: int,
        tell: Callable[[list[Account]], Row],
        kind: Kind = "frame",
    ) -> int:
        """Let up to ``EXPIRED_AT_ONCE`` frames of a camera go, oldest first, that are over its bounds and unoffered.

        With ``kind`` ``readings``, records of a sensor. ``tell`` makes the row that accounts for them on ``status``;
        it is kept together with the expiry. Return how many have gone. What has been offered may be in the log
        already, and is never expired.
        """
        with self._transaction() as db:
            (total,) = db.execute(
                "SELECT coalesce(sum(size), 0) FROM outbox WHERE kind = ? AND name = ?", (kind, name)
            ).fetchone()
            gone: list[Row] = []
            for row, size in _unoffered(db, name, kind):
                if total <= max_bytes and row.captured_ns >= oldest_ns:
                    break
                total -= size
                gone.append(row)
            if gone:
                db.executemany("DELETE FROM outbox WHERE id = ?", [(row.id,) for row in gone])
                _insert(db, [tell(merged([expired_account(row) for row in gone]))])
        return len(gone)

    def depth(self, kind: Kind = "frame") -> list[Depth]:
        """Return what waits of each epoch of each camera, or of each sensor, that has rows here."""
        with self._transaction() as db:
            found = db.execute(
                "SELECT name, epoch, min(id), max(seq), count(*), sum(size) FROM outbox"
                " WHERE kind = ? GROUP BY name, epoch",
                (kind,),
            ).fetchall()
            return [
                Depth(name, epoch, _begin(db, oldest), last, frames, size)
                for name, epoch, oldest, last, frames, size in found
            ]

    @property
    def empty(self) -> bool:
        """Tell whether nothing waits."""
        with self._transaction() as db:
            return db.execute("SELECT 1 FROM outbox LIMIT 1").fetchone() is None

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def _settle(self, which: str, lane: str, bound_ns: int, limit: int) -> list[Row]:
        """Find and settle in one transaction: between the two, an expiry could let the same frames go."""
        found = f"SELECT {_COLUMNS} FROM outbox {which} AND kind = 'frame' AND lane IS NULL ORDER BY id LIMIT ?"  # noqa: S608
        with self._transaction() as db:
            rows = [Row(*values) for values in db.execute(found, (bound_ns, limit))]
            db.executemany("UPDATE outbox SET lane = ? WHERE id = ?", [(lane, row.id) for row in rows])
            if lane == LIVE:
                db.executemany(
                    "INSERT INTO gone_live (name, id) VALUES (?, ?)"
                    " ON CONFLICT (name) DO UPDATE SET id = excluded.id",
                    [(row.name, row.id) for row in rows],
                )
        return rows

    def _rows(self, where: str, *values: object) -> list[Row]:
        with self._transaction() as db:
            return [Row(*found) for found in db.execute(f"SELECT {_COLUMNS} FROM outbox WHERE {where}", values)]  # noqa: S608

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            with self._db:
                yield self._db
        except sqlite3.Error as error:
            raise SpoolError(f"{self.path}: {error}: check that the disk is there, writable and not full") from error

    def _open(self) -> sqlite3.Connection:
        try:
            return self._connect()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise SpoolError(f"{self.path}: {error}: expected a folder that can be written to") from error
            aside = self.path.with_suffix(f".corrupt-{int(time.time())}")
            self.path.rename(aside)
            _log.error("corrupt spool set aside", path=str(aside), error=str(error))
            return self._connect()

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, check_same_thread=False)
        try:
            for pragma in PRAGMAS:
                db.execute(pragma).fetchall()
            db.executescript(CREATE)
        except sqlite3.Error:
            db.close()
            raise
        return db


def _insert(db: sqlite3.Connection, rows: Sequence[Row]) -> None:
    db.executemany(
        "INSERT INTO outbox (kind, name, epoch, seq, captured_ns, lane, size, traceparent, account, record)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (r.kind, r.name, r.epoch, r.seq, r.captured_ns, r.lane, r.size, r.traceparent, r.account, r.record)
            for r in rows
        ],
    )
    kept = [(r.seq, r.name, r.epoch) for r in rows if r.kind != "status"]
    db.executemany("UPDATE epochs SET last_kept = max(last_kept, ?) WHERE name = ? AND epoch = ?", kept)


def _begin(db: sqlite3.Connection, row_id: int) -> int:
    """Return the first number that a row accounts for: its own, or that of what was withheld before it."""
    row = Row(*db.execute(f"SELECT {_WITHOUT_PICTURES} FROM outbox WHERE id = ?", (row_id,)).fetchone())  # noqa: S608
    return expired_account(row).first


def _unoffered(db: sqlite3.Connection, name: str, kind: Kind) -> Iterator[tuple[Row, int]]:
    """Yield what was never offered, oldest first, without pictures but with its size."""
    where = "kind = ? AND name = ? AND lane IS NULL ORDER BY epoch, id LIMIT ?"
    found = f"SELECT {_WITHOUT_PICTURES}, size FROM outbox WHERE {where}"  # noqa: S608
    for *values, size in db.execute(found, (kind, name, EXPIRED_AT_ONCE)):
        yield Row(*values), size
