"""SQLite storage of the spool: rows that wait to be sent, and the epochs (capture runs) of each camera and sensor."""

from __future__ import annotations

import dataclasses
import itertools
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from edge_agent.exceptions import SpoolError
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
"""Total size in bytes at which one read of rows ends. The row with which a read reaches ``READ_BYTES`` is still
returned. The limit bounds memory: a picture of an 8K camera has several MB, and many devices that run an agent have
little memory."""
_VACUUM_PAGES = 512 * 1024 // PAGE_BYTES
"""Number of pages that one vacuum returns to the disk. A vacuum moves pages that are in use, and temporarily needs as
many free bytes of the disk as the vacuum returns."""

_OTHERS = " UNION ALL ".join(
    f"SELECT id FROM outbox WHERE kind = '{kind}' AND lane = '{lane}' AND id > ?1"  # noqa: S608  (constants)
    for kind, lane in (("status", WAITS), ("readings", WAITS), ("readings", LIVE))
)
"""SQL query for the ids of unsent status rows, and of unsent or unacknowledged readings. SQLite reads each SELECT of
the union in index order, so the query does not read the backlog of frames."""
_DEPTH = (
    "SELECT name, epoch, rows, bytes,"
    " (SELECT min(id) FROM outbox o WHERE o.kind = c.kind AND o.name = c.name AND o.epoch = c.epoch),"
    " (SELECT seq FROM outbox o WHERE o.kind = c.kind AND o.name = c.name AND o.epoch = c.epoch"
    " ORDER BY id DESC LIMIT 1) FROM counts c WHERE kind = ? ORDER BY name, epoch"
)
_OVERTAKEN = "id <= coalesce((SELECT g.id FROM gone_live g WHERE g.name = outbox.name), 0)"
"""SQL condition that is true for a frame if a later frame of the same camera was already sent as a live frame."""
_UNOFFERED = f"SELECT id, name FROM outbox INDEXED BY outbox_lane WHERE kind = 'frame' AND lane = '{WAITS}'"  # noqa: S608
_LATE = f"{_UNOFFERED} AND (late_ns < ? OR {_OVERTAKEN}) ORDER BY id LIMIT ?"
_BEFORE = f"{_UNOFFERED} AND id < ? ORDER BY id"


class SpoolStore(SpoolConnection):
    """Store of the rows of one spool in one SQLite file.

    Each method runs one transaction and blocks on the disk. All methods of a store must be called in the same thread.
    Each method raises SpoolUnavailable if the disk refuses the write, or if the file was damaged and has been
    repaired. A call that raised SpoolUnavailable has changed no row, and the caller may repeat the call. ``instance``
    is the name of the agent in status rows.
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
        """Number of rows that have expired since the last update of the metrics, by camera or sensor name. Each
        update of the metrics clears the counter."""
        self.unsent_frames = self.unsent_others = True
        """Two flags: ``unsent_frames`` is False if the spool has no unsent frame, and ``unsent_others`` is False if
        it has no unsent reading or status row. The event loop reads both flags directly, without a call in the
        store's thread."""
        self._caught_up = False
        """Whether a new live frame may be sent at once, because no earlier unsent frame waits for the live lane."""
        self.read_bytes = READ_BYTES
        """Total size in bytes at which one read of rows ends, at most ``READ_BYTES``."""
        super().__init__(path, seal or Seal())

    def late_after(self, seconds: Mapping[str, float]) -> None:
        """Set the maximum age of a live frame in seconds, by camera name.

        The new ages apply to frames stored from now on.
        """
        self._late_after_ns = {name: round(after_s * 1e9) for name, after_s in seconds.items()}

    def keep(self, rows: Sequence[Row], *, acked: Sequence[int] = (), live_bytes: int = 0) -> list[Row]:
        """Commit rows. Once this call returns, the rows survive a crash and a power cut.

        The same transaction deletes the rows with the ids ``acked``, and sets ``lane`` to ``live`` in new frames of
        up to ``live_bytes`` in total. Return the new frames whose lane was set to ``live``. The caller must send them
        at once, as it sends the rows that ``settle_live`` returns. A frame that is late or that would overtake an
        unsent live frame does not become live.
        """
        try:
            with self.transaction() as db:
                db.executemany("DELETE FROM outbox WHERE id = ?", [(i,) for i in acked])
                kept = self._insert(db, rows, live_bytes if self._caught_up else 0)
                live = [row for row in kept if row.lane == LIVE]
                _mark_gone_live(db, live)
        except SpoolError:
            self._caught_up, self.unsent_frames = False, True  # the file may have the rows all the same
            raise
        if waiting := [row for row in kept if row.kind == "frame" and row.lane == WAITS]:
            now_ns = self._clock.now_ns()
            self._caught_up = self._caught_up and all(self._late_ns(row) < now_ns for row in waiting)
            self.unsent_frames = True
        return live

    def keep_notice(self, reason: str) -> None:
        """Store a status row that reports an event of the agent itself."""
        self.keep([self._status_row(reason=reason)])

    def begin_epoch(self, name: str, kind: Kind, unix_time_s: int) -> int:
        """Store and return the number of a new epoch (capture run), larger than all earlier numbers of the camera or
        sensor."""
        with self.transaction() as db:
            (last,) = db.execute("SELECT max(epoch) FROM epochs WHERE name = ?", (name,)).fetchone()
            epoch = next_epoch(last, unix_time_s)
            db.execute("INSERT INTO epochs (name, epoch, kind) VALUES (?, ?, ?)", (name, epoch, kind))
            # the next epoch only has to be larger than the last one
            db.execute("DELETE FROM epochs WHERE name = ? AND ended = 1 AND epoch < ?", (name, epoch))
        return epoch

    def note_reported(self, reported: Iterable[tuple[str, int, int]]) -> None:
        """Store the last sequence numbers that a heartbeat has reported, as (camera or sensor name, epoch, seq)."""
        with self.transaction() as db:
            db.executemany(
                "UPDATE epochs SET told = max(told, ?) WHERE name = ? AND epoch = ?",
                [(s, n, e) for n, e, s in reported],
            )

    def end_epoch(self, kind: Kind, end: EpochEnd, accounts: Sequence[WithheldInterval]) -> None:
        """Mark an epoch (capture run) as ended.

        In the same transaction, store a status row that reports the end and the intervals of withheld frames
        (``accounts``).
        """
        with self.transaction() as db:
            db.execute("UPDATE epochs SET ended = 1 WHERE name = ? AND epoch = ?", (end.camera, end.epoch))
            self._insert(db, [self._status_row(kind, [end], accounts)])

    def unfinished(self, kind: Kind = "frame") -> list[EpochEnd]:
        """Return an end record for each epoch (capture run) that was still open when the last agent process was
        killed.

        The record is marked unclean and has the last stored sequence number.
        """
        with self.transaction() as db:
            found = db.execute(
                "SELECT name, epoch, last_kept, told FROM epochs WHERE ended = 0 AND kind = ?", (kind,)
            ).fetchall()
        return [
            EpochEnd(camera=n, epoch=e, last=last, clean=False, reported=reported) for n, e, last, reported in found
        ]

    def offered(self, lane: str, after_id: int, limit: int) -> list[Row]:
        """Return the frames marked with ``lane`` that were neither acknowledged nor refused, oldest first."""
        with self.transaction() as db:
            return self._read(
                db, "WHERE kind = 'frame' AND lane = ? AND id > ? ORDER BY id LIMIT ?", lane, after_id, limit
            )

    def settle_live(self, now_ns: int, limit: int) -> list[Row]:
        """Set ``lane`` to ``live`` in the rows of unsent frames that are not late.

        Return the changed rows, oldest first. The caller may send the returned rows, which no longer expire. If a
        later live frame of the same camera was already sent, a frame becomes late even if the frame looks young, for
        example after the clock was set back. The live frames of a camera therefore stay in order.
        """
        young = f"INDEXED BY outbox_late WHERE late_ns >= ? AND NOT {_OVERTAKEN}"  # does not search the backlog
        with self.transaction() as db:
            rows = self._settle(
                db, f"{young} AND kind = 'frame' AND lane = '{WAITS}' ORDER BY id LIMIT ?", LIVE, now_ns, limit
            )
            _mark_gone_live(db, rows)
            unsent = db.execute(f"{_UNOFFERED} LIMIT 1").fetchone() is not None
        self._caught_up = len(rows) < limit and sum(row.size for row in rows) < self.read_bytes
        self.unsent_frames = unsent
        return rows

    def settle_late(self, now_ns: int, limit: int) -> list[Row]:
        """Set ``lane`` to ``late`` in the rows of unsent frames that are late.

        Return the changed rows, oldest first. Earlier unsent frames of the same camera become late too, even if a
        wrong clock gave the earlier frames a later time. If an earlier frame were sent after later frames, consumers
        would treat the earlier frame as a duplicate.
        """
        with self.transaction() as db:
            ids = _late_ids(db, now_ns, limit)
            return self._settle(db, f"WHERE id IN ({', '.join('?' * len(ids))}) ORDER BY id", LATE, *ids)

    def others(self, after_id: int, limit: int) -> list[Row]:
        """Return readings and status rows, oldest first.

        The caller may send the returned rows, which no longer expire.
        """
        with self.transaction() as db:
            which = f"WHERE id IN ({_OTHERS} ORDER BY id LIMIT ?2) ORDER BY id"
            rows = self._read(db, which, after_id, limit)
            new = [(LIVE, row.id) for row in rows if row.kind == "readings" and row.lane == WAITS]
            db.executemany("UPDATE outbox SET lane = ? WHERE id = ?", new)
        self.unsent_others = bool(rows)
        return rows

    def remove(self, ids: Sequence[int]) -> None:
        """Delete rows that Kafka has acknowledged."""
        self.keep([], acked=ids)

    def park(self, row_id: int, notice: str = "") -> None:
        """Mark a row that was permanently refused as parked, so that the agent does not send the row again.

        Store a status row with the text ``notice``, unless the text is empty. The agent continues with the rows after
        a parked row. Until a parked row expires, the ledger counts the row as waiting.
        """
        with self.transaction() as db:
            db.execute("UPDATE outbox SET lane = ? WHERE id = ?", (PARKED, row_id))
            self._insert(db, [self._status_row(reason=notice)] if notice else [])

    def expire(self, kind: Kind, name: str, max_bytes: int, oldest_ns: int) -> int:
        """Delete the oldest rows of a camera or sensor that are beyond its limits, at most ``EXPIRED_AT_ONCE`` rows.

        Rows that the agent has tried to send never expire, because Kafka may have them already. The status row that
        reports the expired rows is stored in the same transaction. Return the number of expired rows.
        """
        with self.transaction() as db:
            expired = expire_one(db, self._seal, kind, name, max_bytes, oldest_ns)
            self._insert_accounts(db, expired)
        self.expired += expired.by_name
        return expired.by_name[name]

    def expire_over(self, excess_bytes: int, evidence: Sequence[str]) -> Counter[str]:
        """Delete at most ``EXPIRED_AT_ONCE`` rows of all cameras and sensors, to free ``excess_bytes``.

        The oldest frames expire first, then readings, then frames of the cameras in ``evidence``. Rows that the agent
        has tried to send never expire. Status rows in the same transaction report the expired rows. Return the number
        of expired rows by camera or sensor.
        """
        with self.transaction() as db:
            expired = expire_all(db, self._seal, excess_bytes, evidence)
            self._insert_accounts(db, expired)
        self.expired += expired.by_name
        return expired.by_name

    def depth(self, kind: Kind = "frame") -> list[Depth]:
        """Return the number, bytes and sequence numbers of the waiting rows of each epoch (capture run)."""
        with self.transaction() as db:
            found = db.execute(_DEPTH, (kind,)).fetchall()
            return [
                Depth(name, epoch, self._first_number(db, oldest), last, frames, size)
                for name, epoch, frames, size, oldest, last in found
            ]

    def used_bytes(self) -> int:
        """Return the total size of all stored frames and readings, in bytes."""
        with self.transaction() as db:
            (used,) = db.execute("SELECT coalesce(sum(bytes), 0) FROM counts WHERE kind != 'status'").fetchone()
        return int(used)

    def unused_bytes(self) -> int:
        """Return the total size of the unused pages in the file, in bytes.

        SQLite writes new rows into unused pages, and ``vacuum`` returns unused pages to the disk.
        """
        with self.transaction() as db:
            (pages,), (size,) = (
                db.execute("PRAGMA freelist_count").fetchone(),
                db.execute("PRAGMA page_size").fetchone(),
            )
        return int(pages) * int(size)

    def vacuum(self) -> None:
        """Return up to ``_VACUUM_PAGES`` unused pages of the file to the disk."""
        with self.transaction() as db:
            db.executescript(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})")  # `execute` would end after one page
        self.checkpoint()  # the file shrinks when the write-ahead log is written back

    def checkpoint(self) -> None:
        """Write the write-ahead log back into the database, and truncate the file of the log."""
        with self.transaction() as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def probe(self) -> None:
        """Write a row that carries no information, to test whether the disk accepts writes."""
        with self.transaction() as db:
            db.execute("CREATE TABLE IF NOT EXISTS probe (at INTEGER PRIMARY KEY)")
            db.execute("INSERT OR REPLACE INTO probe VALUES (1)")

    @property
    def empty(self) -> bool:
        """Return whether no row waits to be sent.

        Rows that Kafka or the gateway has refused permanently do not count.
        """
        with self.transaction() as db:
            lanes = "kind IN ('frame', 'readings', 'status') AND lane IN (?, ?, ?)"  # skips the parked rows
            found = db.execute(f"SELECT 1 FROM outbox WHERE {lanes} LIMIT 1", (WAITS, LIVE, LATE)).fetchone()  # noqa: S608
        return found is None

    def _settle(self, db: sqlite3.Connection, which: str, lane: str, *values: object) -> list[Row]:
        """Return the rows that a query finds, and set the column ``lane`` of these rows to ``lane``.

        The caller runs both steps in one transaction, so that no row expires between them.
        """
        rows = self._read(db, which, *values)
        db.executemany("UPDATE outbox SET lane = ? WHERE id = ?", [(lane, row.id) for row in rows])
        return rows

    def _read(self, db: sqlite3.Connection, which: str, *values: object) -> list[Row]:
        """Return the rows that a query finds, up to the row at which the total size reaches ``read_bytes``."""
        rows: list[Row] = []
        size = 0
        for found in db.execute(f"SELECT {COLUMNS} FROM outbox {which}", values):  # noqa: S608
            rows.append(read(found, self._seal))
            size += rows[-1].size
            if size >= self.read_bytes:
                break
        return rows

    def _late_ns(self, row: Row) -> int:
        return row.captured_ns + self._late_after_ns.get(row.name, 0)

    def _insert(self, db: sqlite3.Connection, rows: Sequence[Row], live_bytes: int = 0) -> list[Row]:
        """Insert rows, and return the rows with their ids and lanes.

        If the capture time of a row is in the future, replace the capture time by the present time. A row with a
        capture time in the future would not expire, and would stop the expiry of all rows stored after that row. Set
        ``lane`` to ``live`` in frames that are not late, up to ``live_bytes`` in total.
        """
        now_ns = self._clock.now_ns()
        dated = [row if row.captured_ns <= now_ns else dataclasses.replace(row, captured_ns=now_ns) for row in rows]
        for index, row in enumerate(dated):
            if row.kind == "frame" and live_bytes > 0 and self._late_ns(row) >= now_ns:
                live_bytes -= row.size
                dated[index] = dataclasses.replace(row, lane=LIVE)
        self.unsent_others = self.unsent_others or any(row.kind != "frame" for row in rows)
        return insert(db, dated, self._seal, self._late_ns)

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
        """Return a status row that reports ends of epochs (capture runs), and intervals of withheld or expired rows
        as ``accounts``.

        The status row reports on sensors if ``kind`` is ``readings``, and on cameras for all other kinds.
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
        """Return the first sequence number of a row, or of the items withheld directly before the row."""
        found = db.execute(f"SELECT {WITHOUT_PICTURES} FROM outbox WHERE id = ?", (row_id,)).fetchone()  # noqa: S608
        return expired_account(read(found, self._seal)).first


def _mark_gone_live(db: sqlite3.Connection, rows: Sequence[Row]) -> None:
    """Store the id of the newest row that each camera has sent on the live lane."""
    db.executemany(
        "INSERT INTO gone_live (name, id) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET id = excluded.id",
        list({row.name: row.id for row in rows}.items()),
    )


def _late_ids(db: sqlite3.Connection, now_ns: int, limit: int) -> list[int]:
    """Return the ids of at most ``limit`` unsent frames that must be marked ``late``, oldest first.

    If a frame is late, the ids also include all earlier unsent frames of the same camera, even those that are not
    late yet.
    """
    found: list[tuple[int, str]] = db.execute(_LATE, (now_ns, limit)).fetchall()
    highest = {name: row_id for row_id, name in found}
    if not found:
        return []
    before = (row_id for row_id, name in db.execute(_BEFORE, (found[-1][0],)) if row_id < highest.get(name, 0))
    return sorted({*(row_id for row_id, _ in found), *itertools.islice(before, limit)})[:limit]
