"""A spool that an agent of before has left is brought up to date, and nothing of it is lost meanwhile."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import struct
from pathlib import Path
from unittest.mock import Mock

import pytest
from structlog.testing import capture_logs

from edge_agent.exceptions import SpoolUnavailable
from edge_agent.spool import spool as spool_module
from edge_agent.spool import upgrade
from edge_agent.spool.rows import checksum
from edge_agent.spool.schema import PAGE_BYTES, PARKED, Row
from edge_agent.spool.spool import Spool
from ingest.contract.identity import LATE, LIVE

ROWS = 200
BEFORE = """
PRAGMA auto_vacuum = INCREMENTAL;
PRAGMA page_size = 4096;
PRAGMA journal_mode = WAL;
CREATE TABLE outbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, name TEXT NOT NULL, epoch INTEGER NOT NULL,
    seq INTEGER NOT NULL, captured_ns INTEGER NOT NULL, lane TEXT, size INTEGER NOT NULL, traceparent TEXT NOT NULL,
    account TEXT NOT NULL, record BLOB NOT NULL, late_ns INTEGER NOT NULL DEFAULT 0, key TEXT NOT NULL DEFAULT '',
    crc INTEGER
);
CREATE INDEX outbox_lane ON outbox (kind, lane, id);
CREATE INDEX outbox_late ON outbox (kind, lane, late_ns);
CREATE INDEX outbox_depth ON outbox (kind, name, epoch, id, seq, size);
CREATE INDEX outbox_key ON outbox (key);
CREATE TABLE gone_live (name TEXT PRIMARY KEY, id INTEGER NOT NULL);
CREATE TABLE epochs (name TEXT NOT NULL, epoch INTEGER NOT NULL, kind TEXT NOT NULL,
    last_kept INTEGER NOT NULL DEFAULT -1, told INTEGER NOT NULL DEFAULT -1, ended INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (name, epoch));
INSERT INTO epochs VALUES ('a', 5, 'frame', 199, 210, 0);
INSERT INTO gone_live VALUES ('a', 2);
"""
BEGINS = "spool of before: nothing is captured or sent until it is brought up to date"
LANES = {0: LIVE, 1: LIVE, 2: LATE, 3: PARKED}


def row(seq: int) -> Row:
    return Row("frame", "a", 5, seq, seq, random.Random(seq).randbytes(5000), "tp", "")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A spool of version 1: of 200 frames two are offered live, one late, and one is parked."""
    path = tmp_path / "spool.db"
    db = sqlite3.connect(path)
    db.executescript(BEFORE)
    with db:
        for seq in range(ROWS):
            kept = row(seq)
            values = ("frame", "a", 5, seq, seq, LANES.get(seq), kept.size, "tp", "", kept.record)
            db.execute(
                "INSERT INTO outbox (kind, name, epoch, seq, captured_ns, lane, size, traceparent, account, record,"
                " late_ns, crc) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*values, seq + 100, checksum(kept)),
            )
    db.close()
    return path


def require_all(spool: Spool) -> None:
    """Require that each row is where it was, and go on with it."""
    assert [r.seq for r in spool.offered(LIVE, 0, 10)] == [0, 1]
    assert [r.seq for r in spool.offered(LATE, 0, 10)] == [2]
    (depth,) = spool.depth()
    assert (depth.first, depth.last, depth.frames, depth.bytes) == (0, ROWS - 1, ROWS, 5000 * ROWS)
    rows = spool.settle_late(1000, ROWS)
    assert [(r.id, r.seq, r.record) for r in rows] == [(seq + 1, seq, row(seq).record) for seq in range(4, ROWS)]


def test_a_spool_of_before_goes_on_with_every_row_on_its_lane(path: Path) -> None:
    spool = Spool(path)
    require_all(spool)
    (end,) = spool.unfinished()
    assert (end.last, end.told) == (199, 210)
    assert not spool.recoveries
    spool.close()


def test_once_it_is_empty_its_file_has_the_shape_of_now(path: Path) -> None:
    spool = Spool(path)
    spool.remove(range(1, ROWS + 1))
    spool.close()
    spool = Spool(path)
    assert spool._db is not None
    assert spool._db.execute("PRAGMA page_size").fetchone() == (PAGE_BYTES,)
    assert spool._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert [end.epoch for end in spool.unfinished()] == [5]
    spool.keep([row(ROWS)])
    assert [r.id for r in spool.settle_live(0, 5)] == [ROWS + 1]
    spool.close()


@pytest.mark.parametrize("steps", [1, 3, 5, 7, 9])
def test_an_upgrade_that_is_broken_off_goes_on_at_the_next_start(
    path: Path, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    db = sqlite3.connect(path)
    writes = iter(range(100))

    def allow(action: int, *_: object) -> int:
        write = action in (sqlite3.SQLITE_DROP_INDEX, sqlite3.SQLITE_CREATE_INDEX, sqlite3.SQLITE_UPDATE)
        return sqlite3.SQLITE_DENY if write and next(writes) >= steps else sqlite3.SQLITE_OK

    db.set_authorizer(allow)
    with pytest.raises(sqlite3.DatabaseError):
        upgrade.upgrade(db)
    db.close()
    spool = Spool(path)
    require_all(spool)
    spool.close()


def test_rows_that_an_agent_of_before_which_was_put_back_has_left_are_sent(path: Path) -> None:
    Spool(path).close()
    db = sqlite3.connect(path)
    with db:
        db.execute("UPDATE outbox SET lane = NULL WHERE seq BETWEEN 150 AND 160")
    db.close()
    spool = Spool(path)
    require_all(spool)
    spool.close()


@pytest.mark.parametrize("columns", [("crc",), ("key", "crc"), ("late_ns", "key", "crc")])
@pytest.mark.parametrize("steps", [0, 1, 2, 3])
def test_a_column_that_is_added_changes_no_other_also_when_a_kill_comes_in_between(
    path: Path, columns: tuple[str, ...], steps: int
) -> None:
    db = sqlite3.connect(path)
    db.execute("DROP INDEX outbox_key")
    db.execute("DROP INDEX outbox_late")
    for column in columns:
        db.execute(f"ALTER TABLE outbox DROP COLUMN {column}")
    done = iter(range(1000))

    def allow(action: int, table: str | None, *_: object) -> int:
        step = action == sqlite3.SQLITE_ALTER_TABLE or (action == sqlite3.SQLITE_UPDATE and table == "outbox")
        return sqlite3.SQLITE_DENY if step and next(done) >= steps else sqlite3.SQLITE_OK

    db.set_authorizer(allow)
    with contextlib.suppress(sqlite3.DatabaseError):
        upgrade.upgrade(db)
    db.close()
    spool = Spool(path)
    late_ns = 4 + (upgrade.LATE_AFTER_NS if "late_ns" in columns else 100)  # of the first that was not offered
    assert spool.settle_late(late_ns, 5) == []
    assert [row.seq for row in spool.settle_late(late_ns + 1, 5)] == [4]
    spool.close()


def test_large_pictures_are_brought_up_to_date_in_steps_that_a_full_disk_takes(path: Path) -> None:
    db = sqlite3.connect(path)
    with db:
        db.execute("UPDATE outbox SET record = zeroblob(1000000), size = 1000000, crc = NULL WHERE seq >= 180")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    upgrade.upgrade(db)
    assert path.with_suffix(".db-wal").stat().st_size < 8 * 2**20  # the least that may be held back
    db.close()


def test_small_rows_are_brought_up_to_date_many_in_one_commit(path: Path) -> None:
    """Each commit waits for the disk: half a million readings would take a flash card minutes."""
    db, asked = sqlite3.connect(path), list[str]()
    db.set_trace_callback(asked.append)
    upgrade.upgrade(db)
    assert asked.count("COMMIT") == 1  # for 1 MB
    db.close()


def test_an_index_is_made_without_a_file_beside_the_spool_s(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container whose file system is read-only, there is no other place to write to."""
    places = []

    def where(db: sqlite3.Connection, **_: bool) -> None:
        places.append(db.execute("PRAGMA temp_store").fetchone()[0])
        upgrade.upgrade(db)

    monkeypatch.setattr(spool_module, "upgrade", where)
    Spool(path).close()
    assert places == [2]  # memory


def test_who_waits_for_a_long_backlog_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upgrade, "TELL_EVERY_S", 0.0)
    with capture_logs() as said:
        Spool(path).close()
    events = [line["event"] for line in said]
    assert events[0] == BEGINS
    assert [line["rows_done"] for line in said if "rows_done" in line][-1] == ROWS - len(LANES)
    assert events[-1] == "spool is up to date"
    with capture_logs() as said:
        Spool(path).close()
    assert said == []


def test_a_disk_that_takes_nothing_for_long_does_not_fill_the_log(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = sqlite3.OperationalError("database or disk is full")
    full.sqlite_errorcode = sqlite3.SQLITE_FULL
    with capture_logs() as said:
        with monkeypatch.context() as patch:
            patch.setattr(upgrade, "_make_tables", Mock(side_effect=full))
            spool = Spool(path)
            for _ in range(3):
                with pytest.raises(SpoolUnavailable):
                    spool.used_bytes()
        require_all(spool)
        spool.close()
    assert [line["event"] for line in said] == [BEGINS, "spool is up to date"]


def test_a_damaged_spool_of_before_is_looked_over_before_it_is_changed(path: Path) -> None:
    """Else what frees an index would free pages that rows are on."""
    db = sqlite3.connect(path)
    (rowids,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'outbox'").fetchone()
    with path.open("rb") as file:
        file.seek((rowids - 1) * 4096 + 12)  # the first cell of an inner page begins with the page below
        (cell,) = struct.unpack(">H", file.read(2))
        file.seek((rowids - 1) * 4096 + cell)
        (below,) = struct.unpack(">I", file.read(4))
    db.execute("PRAGMA writable_schema = ON")
    with db:
        db.execute("UPDATE sqlite_master SET rootpage = ? WHERE name = 'outbox_late'", (below,))
    db.close()
    spool = Spool(path)
    assert [recovery.rows for recovery in spool.recoveries] == [ROWS]
    require_all(spool)
    spool.close()


def test_of_a_damaged_spool_of_before_what_is_whole_is_saved(path: Path) -> None:
    db = sqlite3.connect(path)
    (root,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'outbox_late'").fetchone()
    db.close()
    with path.open("r+b") as file:
        file.seek((root - 1) * 4096)
        file.write(random.Random(1).randbytes(4096))
    spool = Spool(path)
    assert [recovery.rows for recovery in spool.recoveries] == [ROWS]
    require_all(spool)
    spool.close()
