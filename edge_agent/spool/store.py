"""Rows of the spool in an SQLite file, with lanes and epochs, until they are delivered over the link."""

from __future__ import annotations

import dataclasses
import itertools
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from edge_agent.spool.connection import SpoolConnection
from edge_agent.spool.expiry import Expired, expire_all, expire_one, expired_account
from edge_agent.spool.schema import (
    COLUMNS,
    PAGE_BYTES,
    PARKED,
    WAITS,
    WITHOUT_PICTURES,
    Depth,
    Kind,
    Row,
    insert,
    read,
)
from edge_agent.spool.seal import Seal
from ingest.contract.codec import encode
from ingest.contract.identity import LATE, LIVE, next_epoch
from ingest.contract.records import EpochEnd, Heartbeat, SensorLedger, WithheldInterval
from ingest.runtime.clock import Clock, SystemClock

SERVICE = "agent"
"""Name of the service in the heartbeats and status rows of an agent."""
READ_BYTES = 4 * 1024 * 1024
"""Number of bytes after which one read ends. The row that exceeds this number is still part of the read. The number
limits memory: a picture of an 8K camera has several MB, and many devices that run an agent have little memory."""
_VACUUM_PAGES = 512 * 1024 // PAGE_BYTES
"""Number of pages that one vacuum returns to the disk. A vacuum moves other pages, and temporarily needs as many free
bytes as it returns."""

_OTHERS = " UNION ALL ".join(
    f"SELECT id FROM outbox WHERE kind = '{kind}' AND lane = '{lane}' AND id > ?1"  # noqa: S608  (constants)
    for kind, lane in (("status", WAITS), ("readings", WAITS), ("readings", LIVE))
)
"""Query for the ids of status rows and readings. SQLite reads each SELECT in index order and merges the results,
without reading the backlog of frames."""
_DEPTH = (
    "SELECT name, epoch, rows, bytes,"
    " (SELECT min(id) FROM outbox o WHERE o.kind = c.kind AND o.name = c.name AND o.epoch = c.epoch),"
    " (SELECT seq FROM outbox o WHERE o.kind = c.kind AND o.name = c.name AND o.epoch = c.epoch"
    " ORDER BY id DESC LIMIT 1) FROM counts c WHERE kind = ? ORDER BY name, epoch"
)
_OVERTAKEN = "id <= coalesce((SELECT g.id FROM gone_live g WHERE g.name = outbox.name), 0)"
"""SQL condition: a later frame of the same camera was already sent as a live frame."""
_UNOFFERED = f"SELECT id, name FROM outbox INDEXED BY outbox_lane WHERE kind = 'frame' AND lane = '{WAITS}'"  # noqa: S608
_LATE = f"{_UNOFFERED} AND (late_ns < ? OR {_OVERTAKEN}) ORDER BY id LIMIT ?"
_BEFORE = f"{_UNOFFERED} AND id < ? ORDER BY id"


class SpoolStore(SpoolConnection):
    """Rows of one SQLite file.

    Each method is one transaction and blocks on the disk. Use a store from one thread only. Each method raises
    SpoolUnavailable if the disk refuses the write now, or if the file was damaged and has been salvaged. A call that
    raised SpoolUnavailable has changed no row, and may be repeated. ``instance`` names the agent in status rows.
    """

    def __init__(
        self,
        path: Path,
        instance: str,
        *,
        seal: Seal | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._instance, self._clock = instance, clock or SystemClock()
        self.late_after({})
        self.expired: Counter[str] = Counter()
        """Number of rows that expired since the metrics were last updated, by camera or sensor. Each update of the
        metrics clears the counter."""
        super().__init__(path, seal or Seal())

    def late_after(self, seconds: Mapping[str, float]) -> None:
        """Set the maximum age of a live frame by camera, for rows kept from now on."""
        self._late_after_ns = {name: round(after_s * 1e9) for name, after_s in seconds.items()}

    def keep(self, rows: Sequence[Row]) -> None:
        """Commit rows. Once this call returns, the rows survive a crash and a power cut."""
        with self.transaction() as db:
            self._insert(db, rows)

    def keep_notice(self, reason: str) -> None:
        """Store a status row that reports an event of the agent itself."""
        self.keep([self._status_row(reason=reason)])

    def begin_epoch(self, name: str, kind: Kind, unix_time_s: int) -> int:
        """Store and return a new epoch number, larger than all earlier epoch numbers of the camera or sensor."""
        with self.transaction() as db:
            (last,) = db.execute("SELECT max(epoch) FROM epochs WHERE name = ?", (name,)).fetchone()
            epoch = next_epoch(last, unix_time_s)
            db.execute("INSERT INTO epochs (name, epoch, kind) VALUES (?, ?, ?)", (name, epoch, kind))
            # the next epoch only has to be larger than the last one
            db.execute("DELETE FROM epochs WHERE name = ? AND ended = 1 AND epoch < ?", (name, epoch))
        return epoch

    def note_reported(self, reported: Iterable[tuple[str, int, int]]) -> None:
        """Remember the last sequence numbers that a heartbeat reports, as (name, epoch, seq)."""
        with self.transaction() as db:
            db.executemany(
                "UPDATE epochs SET told = max(told, ?) WHERE name = ? AND epoch = ?",
                [(s, n, e) for n, e, s in reported],
            )

    def end_epoch(self, kind: Kind, end: EpochEnd, accounts: Sequence[WithheldInterval]) -> None:
        """In one transaction, mark an epoch as ended and store a status row with the end and ``accounts``."""
        with self.transaction() as db:
            db.execute("UPDATE epochs SET ended = 1 WHERE name = ? AND epoch = ?", (end.camera, end.epoch))
            self._insert(db, [self._status_row(kind, [end], accounts)])

    def unfinished(self, kind: Kind = "frame") -> list[EpochEnd]:
        """Return an unclean end for each epoch that is open after a kill, at the last kept frame or reading."""
        with self.transaction() as db:
            found = db.execute(
                "SELECT name, epoch, last_kept, told FROM epochs WHERE ended = 0 AND kind = ?", (kind,)
            ).fetchall()
        return [
            EpochEnd(camera=n, epoch=e, last=last, clean=False, reported=reported) for n, e, last, reported in found
        ]

    def offered(self, lane: str, after_id: int, limit: int) -> list[Row]:
        """Return frames that already have a lane, in order. Each was sent before with unknown result."""
        with self.transaction() as db:
            return self._read(
                db, "WHERE kind = 'frame' AND lane = ? AND id > ? ORDER BY id LIMIT ?", lane, after_id, limit
            )

    def settle_live(self, now_ns: int, limit: int) -> list[Row]:
        """Assign the lane ``live`` to frames that were never sent and are not late.

        Return these frames, oldest first. The returned frames may now be sent, and no longer expire. A frame that is
        older in the spool than a sent live frame of its camera becomes a late frame. A clock that was set back may
        make such a frame look young. Each lane of a camera therefore stays in order.
        """
        young = f"INDEXED BY outbox_late WHERE late_ns >= ? AND NOT {_OVERTAKEN}"  # does not search the backlog
        with self.transaction() as db:
            rows = self._settle(
                db, f"{young} AND kind = 'frame' AND lane = '{WAITS}' ORDER BY id LIMIT ?", LIVE, now_ns, limit
            )
            db.executemany(
                "INSERT INTO gone_live (name, id) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET id = excluded.id",
                [(row.name, row.id) for row in rows],
            )
        return rows

    def settle_late(self, now_ns: int, limit: int) -> list[Row]:
        """Assign the lane ``late`` to frames that were never sent and are late by now.

        Return these frames, oldest first. Earlier frames of the same cameras become late frames too, even if a wrong
        clock gave them a later time. If an earlier frame followed newer frames on its lane, readers would take the
        earlier frame for a repeat.
        """
        with self.transaction() as db:
            ids = _late_ids(db, now_ns, limit)
            return self._settle(db, f"WHERE id IN ({', '.join('?' * len(ids))}) ORDER BY id", LATE, *ids)

    def others(self, after_id: int, limit: int) -> list[Row]:
        """Return readings and status rows, in order. The returned rows may be sent, and no longer expire."""
        with self.transaction() as db:
            which = f"WHERE id IN ({_OTHERS} ORDER BY id LIMIT ?2) ORDER BY id"
            rows = self._read(db, which, after_id, limit)
            new = [(LIVE, row.id) for row in rows if row.kind == "readings" and row.lane == WAITS]
            db.executemany("UPDATE outbox SET lane = ? WHERE id = ?", new)
        return rows

    def remove(self, ids: Sequence[int]) -> None:
        """Delete rows that Kafka has acknowledged."""
        with self.transaction() as db:
            db.executemany("DELETE FROM outbox WHERE id = ?", [(i,) for i in ids])

    def park(self, row_id: int, notice: str = "") -> None:
        """Mark a row as permanently refused (parked), so that it is not sent again.

        Store a status row with ``notice``, unless ``notice`` is empty. A parked row does not delay other rows. The
        ledger counts a parked row as waiting until the row expires.
        """
        with self.transaction() as db:
            db.execute("UPDATE outbox SET lane = ? WHERE id = ?", (PARKED, row_id))
            self._insert(db, [self._status_row(reason=notice)] if notice else [])

    def expire(self, kind: Kind, name: str, max_bytes: int, oldest_ns: int) -> int:
        """Expire up to ``EXPIRED_AT_ONCE`` rows of a camera or sensor that exceed its bounds, oldest first.

        Rows that were passed to the link never expire, because Kafka may have them already. The status row that
        reports the expired rows is stored in the same transaction. Return the number of expired rows.
        """
        with self.transaction() as db:
            expired = expire_one(db, self._seal, kind, name, max_bytes, oldest_ns)
            self._insert_accounts(db, expired)
        self.expired += expired.by_name
        return expired.by_name[name]

    def expire_over(self, excess_bytes: int, evidence: Sequence[str]) -> Counter[str]:
        """Expire up to ``EXPIRED_AT_ONCE`` rows of all cameras and sensors, until ``excess_bytes`` are free.

        The oldest frames expire first, then readings, then frames of the cameras in ``evidence``. Rows that were
        passed to the link never expire. Status rows report the expired rows, as in ``expire``. Return the number of
        expired rows by camera or sensor.
        """
        with self.transaction() as db:
            expired = expire_all(db, self._seal, excess_bytes, evidence)
            self._insert_accounts(db, expired)
        self.expired += expired.by_name
        return expired.by_name

    def depth(self, kind: Kind = "frame") -> list[Depth]:
        """Return the waiting rows of each epoch of each camera or sensor."""
        with self.transaction() as db:
            found = db.execute(_DEPTH, (kind,)).fetchall()
            return [
                Depth(name, epoch, self._first_number(db, oldest), last, frames, size)
                for name, epoch, frames, size, oldest, last in found
            ]

    def used_bytes(self) -> int:
        """Return the bytes of all frames and readings."""
        with self.transaction() as db:
            (used,) = db.execute("SELECT coalesce(sum(bytes), 0) FROM counts WHERE kind != 'status'").fetchone()
        return int(used)

    def unused_bytes(self) -> int:
        """Return the bytes of unused pages in the file.

        SQLite reuses unused pages, or ``vacuum`` returns them to the disk.
        """
        with self.transaction() as db:
            (pages,), (size,) = (
                db.execute("PRAGMA freelist_count").fetchone(),
                db.execute("PRAGMA page_size").fetchone(),
            )
        return int(pages) * int(size)

    def vacuum(self) -> None:
        """Return some unused pages of the file to the disk."""
        with self.transaction() as db:
            db.executescript(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})")  # `execute` would end after one page
        self.checkpoint()  # the file shrinks when the write-ahead log is written back

    def checkpoint(self) -> None:
        """Write the write-ahead log back into the database, and return its space to the disk."""
        with self.transaction() as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def probe(self) -> None:
        """Write a row that carries no information, to test whether the disk accepts writes."""
        with self.transaction() as db:
            db.execute("CREATE TABLE IF NOT EXISTS probe (at INTEGER PRIMARY KEY)")
            db.execute("INSERT OR REPLACE INTO probe VALUES (1)")

    @property
    def empty(self) -> bool:
        """Return whether no row waits for the link. Parked rows do not count."""
        with self.transaction() as db:
            lanes = "kind IN ('frame', 'readings', 'status') AND lane IN (?, ?, ?)"  # skips the parked rows
            found = db.execute(f"SELECT 1 FROM outbox WHERE {lanes} LIMIT 1", (WAITS, LIVE, LATE)).fetchone()  # noqa: S608
        return found is None

    def _settle(self, db: sqlite3.Connection, which: str, lane: str, *values: object) -> list[Row]:
        """Find rows and set their lane in one transaction, so that no row expires between the two steps."""
        rows = self._read(db, which, *values)
        db.executemany("UPDATE outbox SET lane = ? WHERE id = ?", [(lane, row.id) for row in rows])
        return rows

    def _read(self, db: sqlite3.Connection, which: str, *values: object) -> list[Row]:
        """Return the rows that a query finds. Stop when the rows have ``READ_BYTES`` or more in total."""
        rows: list[Row] = []
        size = 0
        for found in db.execute(f"SELECT {COLUMNS} FROM outbox {which}", values):  # noqa: S608
            rows.append(read(found, self._seal))
            size += rows[-1].size
            if size >= READ_BYTES:
                break
        return rows

    def _insert(self, db: sqlite3.Connection, rows: Sequence[Row]) -> None:
        """Insert rows. A row with a capture time in the future gets the present time instead.

        A row with a future time would not expire, and would stop the expiry of the rows stored after it.
        """
        now_ns = self._clock.now_ns()
        dated = [row if row.captured_ns <= now_ns else dataclasses.replace(row, captured_ns=now_ns) for row in rows]
        insert(db, dated, self._seal, lambda row: row.captured_ns + self._late_after_ns.get(row.name, 0))

    def _insert_accounts(self, db: sqlite3.Connection, expired: Expired) -> None:
        rows = [self._status_row(kind, accounts=accounts) for kind, accounts in expired.accounts.items()]
        self._insert(db, rows)

    def _status_row(
        self,
        kind: Kind = "frame",
        ends: Sequence[EpochEnd] = (),
        accounts: Sequence[WithheldInterval] = (),
        reason: str = "",
    ) -> Row:
        """Return a status row with ends of epochs, and with counts of withheld or expired rows (``accounts``).

        The row reports on sensors if ``kind`` is ``readings``, otherwise on cameras.
        """
        now_ns = self._clock.now_ns()
        beat = Heartbeat(service=SERVICE, instance=self._instance, at_ns=now_ns, reason=reason)
        if kind == "readings":
            ledger = SensorLedger(accounts=tuple(accounts), ended=tuple(ends))
            beat = beat.model_copy(update={"readings": ledger})
        else:
            beat = beat.model_copy(update={"ended": tuple(ends), "accounts": tuple(accounts)})
        return Row("status", self._instance, 0, 0, now_ns, encode(beat))

    def _first_number(self, db: sqlite3.Connection, row_id: int) -> int:
        """Return the first sequence number of a row, including the numbers withheld directly before the row."""
        found = db.execute(f"SELECT {WITHOUT_PICTURES} FROM outbox WHERE id = ?", (row_id,)).fetchone()  # noqa: S608
        return expired_account(read(found, self._seal)).first


def _late_ids(db: sqlite3.Connection, now_ns: int, limit: int) -> list[int]:
    """Return the ids of at most ``limit`` frames that become late frames now, oldest first.

    The ids include earlier frames of the same cameras, even if these frames are not late yet.
    """
    found: list[tuple[int, str]] = db.execute(_LATE, (now_ns, limit)).fetchall()
    highest = {name: row_id for row_id, name in found}
    if not found:
        return []
    before = (row_id for row_id, name in db.execute(_BEFORE, (found[-1][0],)) if row_id < highest.get(name, 0))
    return sorted({*(row_id for row_id, _ in found), *itertools.islice(before, limit)})[:limit]
