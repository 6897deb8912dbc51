"""Tests of the cost of a row: bytes written to the disk, and queries that do not slow down as the backlog grows."""

from __future__ import annotations

import random
import re
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edge_agent.exceptions import SpoolUnavailable
from edge_agent.spool.schema import Row
from edge_agent.spool.store import READ_BYTES, SpoolStore
from ingest.contract.codec import encode
from ingest.contract.identity import LATE, LIVE
from ingest.contract.records import GOOD, Readings
from ingest.runtime.clock import ManualClock

S = 1_000_000_000
PICTURE = 40_000
BESIDE = 16_000
"""Maximum number of bytes that a commit writes in addition to the picture."""


def frame(name: str, seq: int, size: int = 100) -> Row:
    return Row("frame", name, 5, seq, seq + 1, random.Random(seq).randbytes(size))


def reading(name: str, seq: int) -> Row:
    columns = {"times_ns": (seq,), "values": (1.0,), "quality": (GOOD,)}
    record = encode(Readings(sensor=name, epoch=5, seq=seq, quantity="t", unit="Cel", **columns))
    return Row("readings", name, 5, seq, seq, record)


def status() -> Row:
    return Row("status", "agent", 0, 0, 0, b"status")


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[SpoolStore]:
    spool = SpoolStore(tmp_path / "spool.db", "agent", clock=ManualClock(started_ns=1000 * S))
    yield spool
    spool.close()


def written(spool: SpoolStore) -> int:
    """Return the bytes of the write-ahead log since the last call."""
    size = spool.path.with_suffix(".db-wal").stat().st_size
    spool.checkpoint()
    return size


def test_setting_the_lane_of_a_spool_row_or_removing_the_row_does_not_rewrite_its_picture(spool: SpoolStore) -> None:
    spool.keep([frame("a", seq, PICTURE) for seq in range(3)])
    spool.settle_live(0, 3)
    spool.remove([1])
    written(spool)
    spool.keep([frame("a", 3, PICTURE)])
    assert written(spool) < PICTURE + BESIDE
    (row,) = spool.settle_live(0, 1)
    assert written(spool) < BESIDE
    assert [found.record for found in spool.offered(LIVE, 3, 5)] == [row.record] == [frame("a", 3, PICTURE).record]
    spool.remove([row.id])
    assert written(spool) < BESIDE


def test_storing_a_live_frame_and_its_lane_writes_its_picture_once(spool: SpoolStore) -> None:
    spool.keep([frame("a", seq, PICTURE) for seq in range(3)])
    spool.settle_live(0, 10)
    written(spool)
    (live,) = spool.keep([replace(frame("a", 3, PICTURE), captured_ns=1000 * S)], acked=[1, 2], live_bytes=1)
    assert written(spool) < PICTURE + BESIDE
    assert live.lane == LIVE


def test_no_spool_query_of_the_sender_or_the_heartbeat_scans_the_backlog(spool: SpoolStore) -> None:
    spool.keep([frame("a", 0), frame("b", 0), reading("t", 0), status()])
    db = spool._db
    assert db is not None
    queries: list[str] = []
    db.set_trace_callback(queries.append)
    rows = spool.others(0, 10) + spool.settle_live(0, 1) + spool.settle_late(1 << 60, 1) + spool.offered(LATE, 0, 1)
    assert len(rows) == 5
    assert not spool.empty
    assert spool.used_bytes() > 200
    assert len(spool.depth()) == 2
    spool.keep([frame("c", 0)])
    assert spool.expire("frame", "c", 0, 0) == 1
    assert spool.expire_over(1 << 40, ["a"]) == {}
    spool.remove([row.id for row in rows])
    db.set_trace_callback(None)
    plans = {sql: [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {sql}")] for sql in queries if "SELECT" in sql}
    assert len(plans) > 10
    for sql, plan in plans.items():
        # a full scan; all rows after an id; all rows of a kind
        wide = [step for step in plan if re.search(r"SCAN (outbox|o\b)|\(rowid>\?\)|outbox\w* \(kind=\?\)", step)]
        assert not wide, (sql, wide)
        sorts = any("TEMP B-TREE" in step for step in plan)
        assert not sorts or "late_ns >=" in sql, sql  # sorts live frames, which are few


def test_one_spool_read_is_limited_in_bytes_and_in_rows(spool: SpoolStore) -> None:
    spool.keep([frame("a", seq, 1_500_000) for seq in range(8)])
    live = spool.settle_live(0, 4)
    assert [row.seq for row in live] == [0, 1, 2]
    assert [row.seq for row in spool.settle_late(1 << 60, 8)] == [3, 4, 5]
    assert [row.seq for row in spool.offered(LIVE, 0, 8)] == [0, 1, 2]
    assert [row.seq for row in spool.offered(LIVE, live[1].id, 8)] == [2]
    spool.keep([frame("a", 8, READ_BYTES + 1)])
    assert [row.seq for row in spool.settle_live(3, 8)] == [6, 7, 8]


def test_after_a_clock_was_set_back_each_read_moves_a_limited_number_of_frames_to_the_late_lane(
    spool: SpoolStore,
) -> None:
    """Without a limit, the first late frame would bring all earlier frames of the outage into one read."""
    young, old = 10_000, 1
    spool.keep([replace(frame("a", seq), captured_ns=young) for seq in range(300)])
    spool.keep([replace(frame("a", seq), captured_ns=old) for seq in range(300, 310)])
    sent: list[int] = []
    while rows := spool.settle_late(young, 8):
        assert len(rows) <= 8
        sent += [row.seq for row in rows]
    assert sent == list(range(310))


@pytest.mark.parametrize("seed", range(2))
def test_spool_counts_match_the_stored_rows_after_failures_and_restarts(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    spool = SpoolStore(tmp_path / "spool.db", "agent", clock=ManualClock(started_ns=1000 * S))
    for step in range(120):
        match chance.randrange(7):
            case 0 | 1:
                spool.keep([frame(chance.choice("abc"), step, chance.randrange(3000)), reading("t", step), status()])
            case 2:
                spool.remove([row.id for row in spool.settle_late(1 << 60, 2)])
            case 3:
                spool.expire("frame", chance.choice("abc"), 4000, 0)
            case 4:
                spool.expire_over(chance.randrange(3000), ["a"])
            case 5:
                _fail(spool, step)
            case _:
                spool.close()
                spool = SpoolStore(spool.path, "agent", clock=ManualClock(started_ns=1000 * S))
        db = spool._db
        assert db is not None
        query = "SELECT kind, name, epoch, count(*), sum(size) FROM outbox GROUP BY kind, name, epoch"
        assert (
            db.execute("SELECT * FROM counts ORDER BY kind, name, epoch").fetchall() == db.execute(query).fetchall()
        )
    spool.close()


def test_spool_counts_include_the_writes_of_another_process(spool: SpoolStore) -> None:
    spool.keep([frame("a", seq, 1000) for seq in range(3)])
    other = sqlite3.connect(spool.path)
    with other:
        other.execute("DELETE FROM outbox WHERE seq > 0")
    assert spool.used_bytes() == 1000
    with other:
        other.execute("UPDATE outbox SET size = 7")
    other.close()
    assert [(depth.frames, depth.bytes) for depth in spool.depth()] == [(1, 7)]


def _fail(spool: SpoolStore, seq: int) -> None:
    """Let a transaction fail after it has written its first row."""
    assert spool._db is not None
    (pages,) = spool._db.execute("PRAGMA page_count").fetchone()
    spool._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(SpoolUnavailable):
        spool.keep([frame("a", seq), frame("b", seq, 10_000_000)])
    spool._db.execute("PRAGMA max_page_count = 1000000")
