"""The spool: what an agent has promised to deliver, in SQLite, until the link has it."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from edge_agent.exceptions import SpoolError, SpoolUnavailable, WrongKey
from edge_agent.spool import opening
from edge_agent.spool.counts import Counts
from edge_agent.spool.expire import expire_all, expire_one
from edge_agent.spool.expiry import expired_account
from edge_agent.spool.rows import COLUMNS, WITHOUT_PICTURES, Damaged, insert, is_whole, read
from edge_agent.spool.salvage import Recovery, salvage
from edge_agent.spool.schema import PAGE_BYTES, PARKED, WAITS, Depth, Kind, Row
from edge_agent.spool.seal import Seal
from edge_agent.spool.settle import OVERTAKEN, late_by, mark_live
from edge_agent.spool.upgrade import upgrade
from ingest.contract.identity import LATE, LIVE, next_epoch
from ingest.contract.records import Account, EpochEnd
from ingest.runtime import logs
from ingest.runtime.clock import Clock, SystemClock

_log = logs.get("edge_agent.spool")

READ_BYTES = 4 * 1024 * 1024
"""So much is read at once, however many rows are asked for: pictures of an 8K camera have MBs each, and the devices
that send them little memory."""
_VACUUM_PAGES = 512 * 1024 // PAGE_BYTES
"""Pages given back to the disk at once: others are moved for them, and need as much room meanwhile."""
_OTHERS = " UNION ALL ".join(
    f"SELECT id FROM outbox WHERE kind = '{kind}' AND lane = '{lane}' AND id > ?1"  # noqa: S608  (constants)
    for kind, lane in (("status", WAITS), ("readings", WAITS), ("readings", LIVE))
)
"""Each is in the order of an index, and they are merged: a backlog of frames is not gone through for them."""
_WAITING = (
    "SELECT name, epoch, rows, bytes,"
    " (SELECT min(id) FROM outbox o WHERE o.kind = c.kind AND o.name = c.name AND o.epoch = c.epoch),"
    " (SELECT seq FROM outbox o WHERE o.kind = c.kind AND o.name = c.name AND o.epoch = c.epoch"
    " ORDER BY id DESC LIMIT 1) FROM counts c WHERE kind = ? ORDER BY name, epoch"
)


class Spool:
    """One SQLite file. Every method is one transaction and blocks on the disk; all belong to one thread.

    Raise SpoolUnavailable when the disk does not take it now, or when the file was damaged and has been mended;
    nothing is half done then, and the same call may be tried again. ``late_after_s`` says by camera how old a frame
    may get until it belongs on the late lane.
    """

    def __init__(
        self,
        path: Path,
        *,
        seal: Seal | None = None,
        late_after_s: Mapping[str, float] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.path = path
        self._seal, self._clock = seal or Seal(), clock or SystemClock()
        self._late_after_ns = {name: round(after_s * 1e9) for name, after_s in (late_after_s or {}).items()}
        self._db: sqlite3.Connection | None = None
        self._counts: Counts | None = None
        self._closed = False
        self._looked_over = False
        self.recoveries: list[Recovery] = []
        """What had to be mended since the start, for whoever tells of it to take."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SpoolError(f"{path.parent}: {error}: expected a folder that can be written to") from error
        with contextlib.suppress(SpoolUnavailable):  # each call tries again
            self._opened()

    def late_after(self, seconds: Mapping[str, float]) -> None:
        """Say by camera how old a frame may be that goes on the live lane, for what is kept from now on."""
        self._late_after_ns = {name: round(after_s * 1e9) for name, after_s in seconds.items()}

    def keep(self, rows: Sequence[Row]) -> None:
        """Promise rows: from the return of this call on they survive a crash and a power cut."""
        with self._transaction() as db:
            self._insert(db, rows)

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
            self._insert(db, status)

    def unfinished(self, kind: Kind = "frame") -> list[EpochEnd]:
        """Return how epochs ended that a kill left open: at their last kept frame or reading, and not cleanly."""
        with self._transaction() as db:
            found = db.execute(
                "SELECT name, epoch, last_kept, told FROM epochs WHERE ended = 0 AND kind = ?", (kind,)
            ).fetchall()
        return [EpochEnd(camera=n, epoch=e, last=last, clean=False, told=told) for n, e, last, told in found]

    def offered(self, lane: str, after_id: int, limit: int) -> list[Row]:
        """Return frames that have a lane already, in order: repeats of sends in doubt."""
        with self._transaction() as db:
            return self._read(
                db, "WHERE kind = 'frame' AND lane = ? AND id > ? ORDER BY id LIMIT ?", lane, after_id, limit
            )

    def settle_live(self, now_ns: int, limit: int) -> list[Row]:
        """Settle frames on the live lane and return them: never offered, not late yet, oldest first.

        They may be offered from now on, and will not expire. A frame that was kept before one that has gone live
        already goes late, whatever a clock that was set back makes of its age: each lane of a camera is in order.
        """
        young = f"INDEXED BY outbox_late WHERE late_ns >= ? AND NOT {OVERTAKEN}"  # a backlog is not searched
        with self._transaction() as db:
            rows = self._settle(
                db, f"{young} AND kind = 'frame' AND lane = '{WAITS}' ORDER BY id LIMIT ?", LIVE, now_ns, limit
            )
            mark_live(db, rows)
        return rows

    def settle_late(self, now_ns: int, limit: int) -> list[Row]:
        """Settle frames on the late lane and return them: never offered, late by now, oldest first.

        With them go the frames of their cameras that were kept before them, though a clock that was wrong then says
        that these have time: once later ones are on the lane, they would be taken for repeats.
        """
        with self._transaction() as db:
            ids = late_by(db, now_ns, limit)
            return self._settle(db, f"WHERE id IN ({', '.join('?' * len(ids))}) ORDER BY id", LATE, *ids)

    def others(self, after_id: int, limit: int) -> list[Row]:
        """Return readings and status records, in order. They may be offered from now on, and will not expire."""
        with self._transaction() as db:
            which = f"WHERE id IN ({_OTHERS} ORDER BY id LIMIT ?2) ORDER BY id"
            rows = self._read(db, which, after_id, limit)
            new = [(LIVE, row.id) for row in rows if row.kind == "readings" and row.lane == WAITS]
            db.executemany("UPDATE outbox SET lane = ? WHERE id = ?", new)
        return rows

    def remove(self, ids: Sequence[int]) -> None:
        """Forget rows that the log has."""
        with self._transaction() as db:
            db.executemany("DELETE FROM outbox WHERE id = ?", [(i,) for i in ids])

    def park(self, row_id: int, status: Sequence[Row]) -> None:
        """Set a row aside that the link refuses for good, and keep what ``status`` is to say of it, together.

        It holds nothing up, still waits as far as the ledger goes, and may expire.
        """
        with self._transaction() as db:
            db.execute("UPDATE outbox SET lane = ? WHERE id = ?", (PARKED, row_id))
            self._insert(db, status)

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
            gone = expire_one(db, self._seal, kind, name, max_bytes, oldest_ns)
            self._insert(db, [tell(accounts) for accounts in gone.accounts.values()])
        return gone.by_name[name]

    def expire_over(
        self, excess_bytes: int, last: Sequence[str], tell: Callable[[list[Account], Kind], Row]
    ) -> dict[str, int]:
        """Let up to ``EXPIRED_AT_ONCE`` frames and readings go, over all cameras, until so many bytes are free.

        The oldest frames first, then readings, then the frames of the cameras named in ``last``; never what has been
        offered. Return how many have gone, by name; they are accounted for as with ``expire``.
        """
        with self._transaction() as db:
            gone = expire_all(db, self._seal, excess_bytes, last)
            self._insert(db, [tell(accounts, kind) for kind, accounts in gone.accounts.items()])
        return gone.by_name

    def depth(self, kind: Kind = "frame") -> list[Depth]:
        """Return what waits of each epoch of each camera, or of each sensor, that has rows here."""
        with self._transaction() as db:
            found = db.execute(_WAITING, (kind,)).fetchall()
            return [
                Depth(name, epoch, self._begin(db, oldest), last, frames, size)
                for name, epoch, frames, size, oldest, last in found
            ]

    def used_bytes(self) -> int:
        """Return how many bytes of frames and readings there are."""
        with self._transaction() as db:
            (used,) = db.execute("SELECT coalesce(sum(bytes), 0) FROM counts WHERE kind != 'status'").fetchone()
        return int(used)

    def unused_bytes(self) -> int:
        """Return how many bytes of the file hold nothing: they are used again, or given back by ``vacuum``."""
        with self._transaction() as db:
            (pages,), (size,) = (
                db.execute("PRAGMA freelist_count").fetchone(),
                db.execute("PRAGMA page_size").fetchone(),
            )
        return int(pages) * int(size)

    def vacuum(self) -> None:
        """Give some of what the file does not use back to the disk."""
        with self._transaction() as db:
            db.executescript(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})")  # `execute` would end after one page
        self.checkpoint()  # a file shrinks when the write-ahead log has been written back

    def checkpoint(self) -> None:
        """Write the write-ahead log back, and give its room back to the disk."""
        with self._transaction() as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def probe(self) -> None:
        """Write something that changes nothing, to see whether the disk takes it."""
        with self._transaction() as db:
            db.execute("CREATE TABLE IF NOT EXISTS probe (at INTEGER PRIMARY KEY)")
            db.execute("INSERT OR REPLACE INTO probe VALUES (1)")

    @property
    def empty(self) -> bool:
        """Tell whether nothing waits for the link; what it refuses does not."""
        with self._transaction() as db:
            lanes = "kind IN ('frame', 'readings', 'status') AND lane IN (?, ?, ?)"  # not through what is parked
            found = db.execute(f"SELECT 1 FROM outbox WHERE {lanes} LIMIT 1", (WAITS, LIVE, LATE)).fetchone()  # noqa: S608
        return found is None

    def close(self) -> None:
        """Close the file."""
        self._closed = True
        if self._db is not None:
            self._db.close()

    def _settle(self, db: sqlite3.Connection, which: str, lane: str, *values: object) -> list[Row]:
        """Find and settle in one transaction: between the two, an expiry could let the same frames go."""
        rows = self._read(db, which, *values)
        db.executemany("UPDATE outbox SET lane = ? WHERE id = ?", [(lane, row.id) for row in rows])
        return rows

    def _read(self, db: sqlite3.Connection, which: str, *values: object) -> list[Row]:
        """Return rows as a query finds them, the first of them at least, until they are ``READ_BYTES``."""
        rows: list[Row] = []
        size = 0
        for found in db.execute(f"SELECT {COLUMNS} FROM outbox {which}", values):  # noqa: S608
            rows.append(read(found, self._seal))
            size += rows[-1].size
            if size >= READ_BYTES:
                break
        return rows

    def _insert(self, db: sqlite3.Connection, rows: Sequence[Row]) -> None:
        """Insert rows. One that is dated in the future is as old as its arrival: it may neither stay young for ever,
        nor keep what came before it from expiring."""
        now_ns = self._clock.now_ns()
        dated = [row if row.captured_ns <= now_ns else dataclasses.replace(row, captured_ns=now_ns) for row in rows]
        insert(db, dated, self._seal, lambda row: row.captured_ns + self._late_after_ns.get(row.name, 0))

    def _begin(self, db: sqlite3.Connection, row_id: int) -> int:
        """Return the first number that a row accounts for: its own, or that of what was withheld before it."""
        found = db.execute(f"SELECT {WITHOUT_PICTURES} FROM outbox WHERE id = ?", (row_id,)).fetchone()  # noqa: S608
        return expired_account(read(found, self._seal)).first

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            db = self._opened()
            if self._counts:
                self._counts.hold()
            with db:
                yield db
        except Damaged as error:
            self._mend(str(error))
        except sqlite3.Error as error:
            if opening.is_damage(error):
                self._mend(str(error))
            verdict = self._verdict(error)
            if isinstance(verdict, SpoolUnavailable) and verdict.why == "failing":
                self._let_go()  # the disk may have gone and come back: the next call opens the file anew
            raise verdict from error

    def _opened(self) -> sqlite3.Connection:
        if self._closed:
            raise SpoolError(f"{self.path} is closed")
        if self._db is None:
            try:
                opening.finish_exchange(self.path)
                fresh, again = not self.path.exists(), self._looked_over
                self._db = opening.connect(self.path)
                if not fresh and not again:
                    opening.look_over(self._db)
                self._looked_over = True
                upgrade(self._db, again=again)  # it may spoil what could be saved of a damaged file
                self._counts = Counts(self._db)
                self._require_keys(self._db)
            except (sqlite3.Error, OSError) as error:
                if isinstance(error, sqlite3.Error) and opening.is_damage(error):
                    self._mend(str(error))
                self._let_go()
                raise self._verdict(error) from error
        return self._db

    def _mend(self, error: str) -> None:
        """Save what can be saved of a damaged file. Raise SpoolUnavailable: what was tried may be tried again."""
        self._let_go()
        try:
            recovery = salvage(self.path)
        except (sqlite3.Error, OSError) as failure:
            raise self._verdict(failure) from failure
        _log.error("corrupt spool set aside", error=error, found=str(recovery))
        self.recoveries.append(recovery)
        raise SpoolUnavailable(self.path, "mended", error)

    def _require_keys(self, db: sqlite3.Connection) -> None:
        """Raise WrongKey for rows under keys that were not given, DatabaseError where damage makes it seem so."""
        found = [key for (key,) in db.execute("SELECT DISTINCT key FROM outbox") if not self._seal.knows(key)]
        if not found:
            return
        query = f"SELECT {COLUMNS} FROM outbox NOT INDEXED WHERE key = ? LIMIT 1"  # noqa: S608
        for key in found:
            for *fields, _, crc in db.execute(query, (key,)):
                if is_whole(Row(*fields), key, crc):
                    self._let_go()
                    raise WrongKey(self.path, found)
        raise sqlite3.DatabaseError(f"no whole row is under the keys {found}")

    def _let_go(self) -> None:
        if self._db is not None:
            self._db.close()
        self._db = self._counts = None

    def _verdict(self, error: Exception) -> SpoolError:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if not isinstance(error, OSError) and code in (0, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_MISUSE):
            return SpoolError(f"{self.path}: {error}")
        if code == sqlite3.SQLITE_FULL:
            return SpoolUnavailable(self.path, "full", error)
        with contextlib.suppress(OSError):
            if code == sqlite3.SQLITE_READONLY or os.statvfs(self.path.parent).f_flag & os.ST_RDONLY:
                return SpoolUnavailable(self.path, "read-only", error)
        return SpoolUnavailable(self.path, "failing", error)
