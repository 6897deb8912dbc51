"""What a row costs: few bytes on the disk beside its own, and with a long backlog no more work than with none."""

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
from edge_agent.spool.spool import READ_BYTES, Spool
from ingest.contract.codec import encode
from ingest.contract.identity import LATE, LIVE
from ingest.contract.records import GOOD, Account, Readings
from ingest.runtime.clock import ManualClock

S = 1_000_000_000
PICTURE = 40_000
BESIDE = 16_000
"""Bytes that a commit may write beside the picture."""


def frame(name: str, seq: int, size: int = 100) -> Row:
    return Row("frame", name, 5, seq, seq + 1, random.Random(seq).randbytes(size))


def reading(name: str, seq: int) -> Row:
    columns = {"times_ns": (seq,), "values": (1.0,), "quality": (GOOD,)}
    record = encode(Readings(sensor=name, epoch=5, seq=seq, quantity="t", unit="Cel", **columns))
    return Row("readings", name, 5, seq, seq, record)


def status() -> Row:
    return Row("status", "agent", 0, 0, 0, b"told")


def tell(accounts: list[Account], kind: str = "frame") -> Row:
    return status()


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    spool = Spool(tmp_path / "spool.db", clock=ManualClock(started_ns=1000 * S))
    yield spool
    spool.close()


def written(spool: Spool) -> int:
    """Return how many bytes the write-ahead log has taken since this was last asked."""
    size = spool.path.with_suffix(".db-wal").stat().st_size
    spool.checkpoint()
    return size


def test_a_picture_is_written_once_and_neither_its_lane_nor_its_end_writes_it_again(spool: Spool) -> None:
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


def test_no_query_of_the_sender_or_the_heartbeat_goes_through_the_backlog(spool: Spool) -> None:
    spool.keep([frame("a", 0), frame("b", 0), reading("t", 0), status()])
    db = spool._db
    assert db is not None
    asked: list[str] = []
    db.set_trace_callback(asked.append)
    rows = spool.others(0, 10) + spool.settle_live(0, 1) + spool.settle_late(1 << 60, 1) + spool.offered(LATE, 0, 1)
    assert len(rows) == 5
    assert not spool.empty
    assert spool.used_bytes() > 200
    assert len(spool.depth()) == 2
    spool.keep([frame("c", 0)])
    assert spool.expire("c", 0, 0, tell) == 1
    assert spool.expire_over(1 << 40, ["a"], tell) == {}
    spool.remove([row.id for row in rows])
    db.set_trace_callback(None)
    plans = {sql: [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {sql}")] for sql in asked if "SELECT" in sql}
    assert len(plans) > 10
    for sql, plan in plans.items():
        # all of it; all that came after a row; all of a kind
        wide = [step for step in plan if re.search(r"SCAN (outbox|o\b)|\(rowid>\?\)|outbox\w* \(kind=\?\)", step)]
        assert not wide, (sql, wide)
        sorts = any("TEMP B-TREE" in step for step in plan)
        assert not sorts or "late_ns >=" in sql, sql  # of frames that are young, of which there are few


def test_what_is_read_at_once_is_bounded_in_bytes_whatever_its_number(spool: Spool) -> None:
    spool.keep([frame("a", seq, 1_500_000) for seq in range(8)])
    live = spool.settle_live(0, 4)
    assert [row.seq for row in live] == [0, 1, 2]
    assert [row.seq for row in spool.settle_late(1 << 60, 8)] == [3, 4, 5]
    assert [row.seq for row in spool.offered(LIVE, 0, 8)] == [0, 1, 2]
    assert [row.seq for row in spool.offered(LIVE, live[1].id, 8)] == [2]
    spool.keep([frame("a", 8, READ_BYTES + 1)])
    assert [row.seq for row in spool.settle_live(3, 8)] == [6, 7, 8]


def test_frames_that_a_clock_which_went_back_has_left_young_go_late_in_bounded_portions(spool: Spool) -> None:
    """All of an outage was kept before the clock went back, and would be read at once with the first late frame."""
    young, old = 10_000, 1
    spool.keep([replace(frame("a", seq), captured_ns=young) for seq in range(300)])
    spool.keep([replace(frame("a", seq), captured_ns=old) for seq in range(300, 310)])
    sent: list[int] = []
    while rows := spool.settle_late(young, 8):
        assert len(rows) <= 8
        sent += [row.seq for row in rows]
    assert sent == list(range(310))


@pytest.mark.parametrize("seed", range(2))
def test_what_waits_is_counted_as_it_is_also_over_failures_and_restarts(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    spool = Spool(tmp_path / "spool.db", clock=ManualClock(started_ns=1000 * S))
    for step in range(120):
        match chance.randrange(7):
            case 0 | 1:
                spool.keep([frame(chance.choice("abc"), step, chance.randrange(3000)), reading("t", step), status()])
            case 2:
                spool.remove([row.id for row in spool.settle_late(1 << 60, 2)])
            case 3:
                spool.expire(chance.choice("abc"), 4000, 0, tell)
            case 4:
                spool.expire_over(chance.randrange(3000), ["a"], tell)
            case 5:
                _fail(spool, step)
            case _:
                spool.close()
                spool = Spool(spool.path, clock=ManualClock(started_ns=1000 * S))
        db = spool._db
        assert db is not None
        query = "SELECT kind, name, epoch, count(*), sum(size) FROM outbox GROUP BY kind, name, epoch"
        assert (
            db.execute("SELECT * FROM counts ORDER BY kind, name, epoch").fetchall() == db.execute(query).fetchall()
        )
    spool.close()


def test_what_another_process_has_written_is_counted_too(spool: Spool) -> None:
    spool.keep([frame("a", seq, 1000) for seq in range(3)])
    other = sqlite3.connect(spool.path)
    with other:
        other.execute("DELETE FROM outbox WHERE seq > 0")
    assert spool.used_bytes() == 1000
    with other:
        other.execute("UPDATE outbox SET size = 7")
    other.close()
    assert [(depth.frames, depth.bytes) for depth in spool.depth()] == [(1, 7)]


def _fail(spool: Spool, seq: int) -> None:
    """Let a transaction fail after it has written something."""
    assert spool._db is not None
    (pages,) = spool._db.execute("PRAGMA page_count").fetchone()
    spool._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(SpoolUnavailable):
        spool.keep([frame("a", seq), frame("b", seq, 10_000_000)])
    spool._db.execute("PRAGMA max_page_count = 1000000")
