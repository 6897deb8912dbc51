"""What a full spool lets go, in which order, and which lane a frame goes on."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edge_agent.spool.reserve import Reserve, Room
from edge_agent.spool.schema import Kind, Row
from edge_agent.spool.spool import Spool
from ingest.contract.codec import encode
from ingest.contract.identity import LATE, LIVE
from ingest.contract.records import GOOD, Account, Readings
from ingest.runtime.clock import ManualClock

S = 1_000_000_000


def frame(name: str, seq: int, *, at_ns: int = 0, size: int = 1000) -> Row:
    return Row("frame", name, 5, seq, at_ns or seq, b"x" * size)


def reading(name: str, seq: int) -> Row:
    columns = {"times_ns": (seq,), "values": (1.0,), "quality": (GOOD,)}
    record = encode(Readings(sensor=name, epoch=5, seq=seq, quantity="t", unit="Cel", **columns))
    return Row("readings", name, 5, seq, seq, record)


class Told:
    """What the accounts say that expiry tells."""

    def __init__(self) -> None:
        self.said: list[tuple[Kind, str, int, int]] = []

    def __call__(self, accounts: list[Account], kind: Kind) -> Row:
        self.said += [(kind, a.camera, a.first, a.last) for a in accounts]
        return Row("status", "agent", 0, 0, 0, b"told")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(started_ns=1000 * S)


@pytest.fixture
def spool(tmp_path: Path, clock: ManualClock) -> Iterator[Spool]:
    spool = Spool(tmp_path / "spool.db", late_after_s={"fast": 2.0, "slow": 60.0}, clock=clock)
    yield spool
    spool.close()


def test_over_all_cameras_the_oldest_frames_go_first_then_readings_and_evidence_last(spool: Spool) -> None:
    told = Told()
    spool.keep(
        [frame("gate", 0), reading("cabinet", 0), frame("a", 0), frame("b", 0), frame("a", 1), frame("gate", 1)]
    )
    small = reading("cabinet", 0).size
    assert spool.expire_over(1500, ["gate"], told) == {"a": 1, "b": 1}
    assert spool.expire_over(1000 + small, ["gate"], told) == {"a": 1, "cabinet": 1}
    assert spool.expire_over(1, ["gate"], told) == {"gate": 1}
    assert told.said == [
        ("frame", "a", 0, 0),
        ("frame", "b", 0, 0),
        ("frame", "a", 1, 1),
        ("readings", "cabinet", 0, 0),
        ("frame", "gate", 0, 0),
    ]
    assert [(d.name, d.first, d.frames) for d in spool.depth()] == [("gate", 1, 1)]
    assert [row.record for row in spool.others(0, 10)] == [b"told"] * 4  # every one is accounted for


def test_what_was_offered_and_what_the_ledger_needs_never_expires(spool: Spool, clock: ManualClock) -> None:
    told = Told()
    spool.keep([frame("a", 0), frame("a", 1), Row("status", "agent", 0, 0, 0, b"ended")])
    (offered,) = spool.settle_late(clock.now_ns(), 1)
    assert spool.expire_over(10_000_000, [], told) == {"a": 1}
    assert told.said == [("frame", "a", 1, 1)]
    assert spool.offered(LATE, 0, 10) == [replace(offered, lane=LATE)]
    assert [row.record for row in spool.others(0, 10)] == [b"ended", b"told"]


@pytest.mark.parametrize(
    ("used", "unused", "free", "excess"),
    [
        (100, 0, 1000, 0),
        (600, 0, 1000, 100),  # over its own bound
        (100, 0, 150, 50),  # others have taken the disk
        (100, 30, 150, 20),  # what its file does not use counts as free
        (600, 0, 100, 100),
    ],
)
def test_the_spool_gives_way_before_the_disk_is_full(used: int, unused: int, free: int, excess: int) -> None:
    assert Room(used, unused, free).excess(max_bytes=500, min_free_bytes=200) == excess


def test_each_camera_has_its_own_age_for_the_late_lane(spool: Spool, clock: ManualClock) -> None:
    start_ns = clock.now_ns()
    spool.keep([frame("fast", 0, at_ns=start_ns), frame("slow", 0, at_ns=start_ns)])
    clock.advance(5.0)
    assert [row.name for row in spool.settle_late(clock.now_ns(), 10)] == ["fast"]
    assert [row.name for row in spool.settle_live(clock.now_ns(), 10)] == ["slow"]


def test_a_frame_that_is_dated_in_the_future_is_as_old_as_its_arrival(spool: Spool, clock: ManualClock) -> None:
    spool.keep([frame("fast", 0, at_ns=clock.now_ns() + 3600 * S), frame("fast", 1, at_ns=clock.now_ns())])
    clock.advance(5.0)
    assert spool.settle_live(clock.now_ns(), 10) == []
    assert [row.seq for row in spool.settle_late(clock.now_ns(), 10)] == [0, 1]


def test_a_frame_that_has_time_is_not_overtaken_on_the_late_lane(spool: Spool, clock: ManualClock) -> None:
    """A clock that was set back between two frames makes the later one the older: both go late, in order."""
    start_ns = clock.now_ns()
    spool.keep([frame("fast", 0, at_ns=start_ns - 100 * S), frame("fast", 1, at_ns=start_ns)])
    spool.keep([frame("fast", 2, at_ns=start_ns - 50 * S), frame("slow", 0, at_ns=start_ns)])
    assert [(row.name, row.seq) for row in spool.settle_late(start_ns, 10)] == [("fast", 0), ("fast", 1), ("fast", 2)]
    assert [(row.name, row.lane) for row in spool.offered(LATE, 0, 10)] == [("fast", LATE)] * 3
    assert [row.name for row in spool.settle_live(start_ns, 10)] == ["slow"]


def test_what_the_link_refuses_holds_nothing_up_waits_and_may_expire(spool: Spool, clock: ManualClock) -> None:
    told = Told()
    spool.keep([frame("a", 0), frame("a", 1)])
    late = spool.settle_late(clock.now_ns(), 10)
    spool.park(late[0].id, [Row("status", "agent", 0, 0, 0, b"refused")])
    spool.remove([late[1].id])
    assert spool.offered(LATE, 0, 10) == spool.offered(LIVE, 0, 10) == spool.settle_late(clock.now_ns(), 10) == []
    assert [(d.first, d.last) for d in spool.depth()] == [(0, 0)]
    assert not spool.empty  # that it was refused is still to be told
    spool.remove([row.id for row in spool.others(0, 10)])
    assert spool.empty
    assert spool.expire_over(1, [], told) == {"a": 1}
    assert told.said == [("frame", "a", 0, 0)]


def test_an_expired_backlog_gives_its_room_back_to_the_disk(spool: Spool) -> None:
    spool.keep([frame("a", seq, size=100_000) for seq in range(30)])
    spool.expire_over(3_000_000, [], Told())
    assert spool.unused_bytes() > 2_900_000
    for _ in range(10):  # so much at a time
        spool.vacuum()
    assert spool.unused_bytes() == 0
    assert sum(file.stat().st_size for file in spool.path.parent.iterdir()) < 200_000


def test_forgetting_what_was_sent_costs_no_room(spool: Spool) -> None:
    spool.keep([frame("a", seq, size=100_000) for seq in range(30)])
    spool.checkpoint()
    spool.remove(list(range(1, 31)))
    assert spool.path.with_suffix(".db-wal").stat().st_size < 200_000  # a full disk has to take it


def test_a_spool_of_before_is_read_and_can_give_room_back(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    db = sqlite3.connect(path)
    db.execute("PRAGMA journal_mode = WAL").fetchall()
    db.executescript(
        "CREATE TABLE outbox (id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, name TEXT NOT NULL,"
        " epoch INTEGER NOT NULL, seq INTEGER NOT NULL, captured_ns INTEGER NOT NULL, lane TEXT,"
        " size INTEGER NOT NULL, traceparent TEXT NOT NULL, account TEXT NOT NULL, record BLOB NOT NULL);"
        "INSERT INTO outbox VALUES (7, 'frame', 'a', 5, 3, 10, NULL, 1, 'tp', '', x'78');"
    )
    db.close()
    for _ in range(2):
        spool = Spool(path)
        (row,) = spool.offered(LATE, 0, 5) or spool.settle_late(10 * S, 5)
        assert (row.id, row.seq, row.record, row.traceparent) == (7, 3, b"x", "tp")
        spool.close()
    spool = Spool(path)
    spool.remove([7])
    spool.close()
    spool = Spool(path)
    spool.keep([frame("a", 4, size=1_000_000)])
    spool.expire_over(1, [], Told())
    for _ in range(10):  # so much at a time
        spool.vacuum()
    assert spool.unused_bytes() == 0
    spool.close()


def test_the_reserve_takes_room_and_lets_it_go(tmp_path: Path) -> None:
    reserve = Reserve(tmp_path / "spool.reserve", 1_000_000)
    assert not reserve.held
    assert reserve.fill()
    assert reserve.fill()
    assert (tmp_path / "spool.reserve").stat().st_blocks * 512 >= 1_000_000
    assert reserve.release()
    assert not reserve.release()
    assert not Reserve(tmp_path / "spool.reserve", 1 << 60).fill()  # more than there is
