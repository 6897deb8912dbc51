"""A spool that an agent of before has left is brought up to date, and nothing of it is lost meanwhile."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path

import pytest

from edge_agent.spool import upgrade
from edge_agent.spool.rows import checksum
from edge_agent.spool.schema import PAGE_BYTES, PARKED, Row
from edge_agent.spool.spool import Spool
from ingest.identity import LATE, LIVE

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
