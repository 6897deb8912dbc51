"""Tests of the spool's expiry order, its bounds on the disk, and the lanes of frames."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edge_agent.exceptions import SpoolUnavailable
from edge_agent.spool.schema import Row
from edge_agent.spool.space import Reserve, Room
from edge_agent.spool.store import SpoolStore
from ingest.contract.codec import decode, encode
from ingest.contract.identity import LATE, LIVE
from ingest.contract.records import GOOD, Heartbeat, Readings
from ingest.runtime.clock import ManualClock

S = 1_000_000_000


def frame(name: str, seq: int, *, at_ns: int = 0, size: int = 1000) -> Row:
    return Row("frame", name, 5, seq, at_ns or seq, b"x" * size)


def reading(name: str, seq: int) -> Row:
    columns = {"times_ns": (seq,), "values": (1.0,), "quality": (GOOD,)}
    record = encode(Readings(sensor=name, epoch=5, seq=seq, quantity="t", unit="Cel", **columns))
    return Row("readings", name, 5, seq, seq, record)


Interval = tuple[str, str, int, int]


def accounted(spool: SpoolStore) -> list[Interval]:
    """Return kind, name, first and last number of each interval of expired rows, in the order of the status rows."""
    found: list[Interval] = []
    for row in spool.others(0, 1000):
        if row.kind == "status":
            beat = decode(Heartbeat, row.record)
            found += [("frame", a.camera, a.first, a.last) for a in beat.accounts]
            found += [("readings", a.camera, a.first, a.last) for a in beat.readings.accounts]
    return found


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(started_ns=1000 * S)


@pytest.fixture
def spool(tmp_path: Path, clock: ManualClock) -> Iterator[SpoolStore]:
    spool = SpoolStore(tmp_path / "spool.db", "agent", clock=clock)
    spool.late_after({"fast": 2.0, "slow": 60.0})
    yield spool
    spool.close()


def test_a_full_spool_expires_frames_then_readings_and_last_the_frames_of_cameras_with_evidence_enabled(
    spool: SpoolStore,
) -> None:
    spool.keep(
        [frame("gate", 0), reading("cabinet", 0), frame("a", 0), frame("b", 0), frame("a", 1), frame("gate", 1)]
    )
    small = reading("cabinet", 0).size
    assert spool.expire_over(1500, ["gate"]) == {"a": 1, "b": 1}
    assert spool.expire_over(1000 + small, ["gate"]) == {"a": 1, "cabinet": 1}
    assert spool.expire_over(1, ["gate"]) == {"gate": 1}
    assert accounted(spool) == [
        ("frame", "a", 0, 0),
        ("frame", "b", 0, 0),
        ("frame", "a", 1, 1),
        ("readings", "cabinet", 0, 0),
        ("frame", "gate", 0, 0),
    ]
    assert [(d.name, d.first, d.frames) for d in spool.depth()] == [("gate", 1, 1)]


def test_spool_rows_already_offered_to_kafka_and_status_rows_never_expire(
    spool: SpoolStore, clock: ManualClock
) -> None:
    ended = encode(Heartbeat(service="agent", instance="agent", at_ns=0, reason="ended"))
    spool.keep([frame("a", 0), frame("a", 1), Row("status", "agent", 0, 0, 0, ended)])
    (offered,) = spool.settle_late(clock.now_ns(), 1)
    assert spool.expire_over(10_000_000, []) == {"a": 1}
    assert accounted(spool) == [("frame", "a", 1, 1)]
    assert spool.offered(LATE, 0, 10) == [replace(offered, lane=LATE)]
    assert spool.others(0, 10)[0].record == ended
    assert len(spool.others(0, 10)) == 2


@pytest.mark.parametrize(
    ("used", "unused", "free", "excess"),
    [
        (100, 0, 1000, 0),
        (600, 0, 1000, 100),  # over the bound of the spool
        (100, 0, 150, 50),  # other files fill the disk
        (100, 30, 150, 20),  # unused pages of the file count as free
        (600, 0, 100, 100),
    ],
)
def test_the_number_of_bytes_to_expire_follows_from_the_spool_limit_and_the_minimum_free_space(
    used: int, unused: int, free: int, excess: int
) -> None:
    assert Room(used, unused, free).excess(max_bytes=500, min_free_bytes=200) == excess


def test_each_camera_has_its_own_maximum_age_of_live_frames(spool: SpoolStore, clock: ManualClock) -> None:
    start_ns = clock.now_ns()
    spool.keep([frame("fast", 0, at_ns=start_ns), frame("slow", 0, at_ns=start_ns)])
    clock.advance(5.0)
    assert [row.name for row in spool.settle_late(clock.now_ns(), 10)] == ["fast"]
    assert [row.name for row in spool.settle_live(clock.now_ns(), 10)] == ["slow"]


def test_the_age_of_a_frame_dated_in_the_future_counts_from_its_arrival(
    spool: SpoolStore, clock: ManualClock
) -> None:
    spool.keep([frame("fast", 0, at_ns=clock.now_ns() + 3600 * S), frame("fast", 1, at_ns=clock.now_ns())])
    clock.advance(5.0)
    assert spool.settle_live(clock.now_ns(), 10) == []
    assert [row.seq for row in spool.settle_late(clock.now_ns(), 10)] == [0, 1]


def test_earlier_frames_of_a_camera_move_to_the_late_lane_together_with_a_late_frame(
    spool: SpoolStore, clock: ManualClock
) -> None:
    """The second frame has an older time, because the clock was set back. Both frames move to the late lane."""
    start_ns = clock.now_ns()
    spool.keep([frame("fast", 0, at_ns=start_ns - 100 * S), frame("fast", 1, at_ns=start_ns)])
    spool.keep([frame("fast", 2, at_ns=start_ns - 50 * S), frame("slow", 0, at_ns=start_ns)])
    assert [(row.name, row.seq) for row in spool.settle_late(start_ns, 10)] == [("fast", 0), ("fast", 1), ("fast", 2)]
    assert [(row.name, row.lane) for row in spool.offered(LATE, 0, 10)] == [("fast", LATE)] * 3
    assert [row.name for row in spool.settle_live(start_ns, 10)] == ["slow"]


def test_a_new_frame_is_sent_as_live_when_it_is_committed_unless_an_older_frame_still_waits(
    spool: SpoolStore, clock: ManualClock
) -> None:
    def new(seq: int, age_s: float = 0.0) -> Row:
        return frame("fast", seq, at_ns=clock.now_ns() - round(age_s * S))

    assert spool.keep([new(0)], live_bytes=9000) == []  # rows of an earlier run may wait
    assert [row.seq for row in spool.settle_live(clock.now_ns(), 10)] == [0]
    live = spool.keep([new(1), reading("cabinet", 0), new(2, age_s=5.0), new(3), new(4)], acked=[1], live_bytes=1500)
    assert [(row.id, row.seq, row.lane) for row in live] == [(2, 1, LIVE), (5, 3, LIVE)]  # the third frame is late
    assert spool.offered(LIVE, 0, 10) == live
    assert spool.keep([new(5)], live_bytes=9000) == []  # would overtake frame 4
    assert [row.seq for row in spool.settle_live(clock.now_ns(), 1)] == [4]
    assert spool.keep([new(6)], live_bytes=9000) == []  # more frames may wait than one read returned
    assert [row.seq for row in spool.settle_live(clock.now_ns(), 10)] == [5, 6]
    assert [row.seq for row in spool.keep([new(7)], live_bytes=9000)] == [7]
    assert [row.seq for row in spool.settle_late(clock.now_ns(), 10)] == [2]
    assert spool.expire_over(1 << 30, []) == {"cabinet": 1}  # frames of both lanes may be in Kafka


def test_the_spool_reports_separately_whether_it_has_unsent_frames_and_unsent_readings_or_status_rows(
    spool: SpoolStore, clock: ManualClock
) -> None:
    assert spool.unsent_frames
    assert spool.unsent_others
    assert spool.settle_live(clock.now_ns(), 10) == spool.others(0, 10) == []
    assert not spool.unsent_frames
    assert not spool.unsent_others
    spool.keep([frame("fast", 0, at_ns=clock.now_ns())], live_bytes=1)
    assert not spool.unsent_frames
    spool.keep([frame("fast", 1, at_ns=clock.now_ns())])
    assert spool.unsent_frames
    assert not spool.unsent_others
    spool.keep_notice("restarted")
    assert spool.unsent_others


def test_the_live_frame_after_a_failed_commit_is_not_sent_from_memory_but_read_from_the_spool(
    spool: SpoolStore, clock: ManualClock
) -> None:
    spool.settle_live(clock.now_ns(), 10)
    spool._db.execute("PRAGMA query_only = ON")  # type: ignore[union-attr]
    with pytest.raises(SpoolUnavailable):
        spool.keep([frame("fast", 0, at_ns=clock.now_ns())], live_bytes=9000)
    spool._db.execute("PRAGMA query_only = OFF")  # type: ignore[union-attr]
    assert spool.unsent_frames
    assert spool.keep([frame("fast", 1, at_ns=clock.now_ns())], live_bytes=9000) == []
    assert [row.seq for row in spool.settle_live(clock.now_ns(), 10)] == [1]
    assert not spool.unsent_frames


def test_a_spool_row_refused_by_the_broker_delays_no_other_row_and_may_expire(
    spool: SpoolStore, clock: ManualClock
) -> None:
    spool.keep([frame("a", 0), frame("a", 1)])
    late = spool.settle_late(clock.now_ns(), 10)
    spool.park(late[0].id, "refused")
    spool.remove([late[1].id])
    assert spool.offered(LATE, 0, 10) == spool.offered(LIVE, 0, 10) == spool.settle_late(clock.now_ns(), 10) == []
    assert [(d.first, d.last) for d in spool.depth()] == [(0, 0)]
    assert not spool.empty  # the notice of the refusal still waits
    spool.remove([row.id for row in spool.others(0, 10)])
    assert spool.empty
    assert spool.expire_over(1, []) == {"a": 1}
    assert accounted(spool) == [("frame", "a", 0, 0)]


def test_a_vacuum_of_the_spool_returns_the_space_of_an_expired_backlog_to_the_disk(spool: SpoolStore) -> None:
    spool.keep([frame("a", seq, size=100_000) for seq in range(30)])
    spool.expire_over(3_000_000, [])
    assert spool.unused_bytes() > 2_900_000
    for _ in range(10):  # each call returns part of the room
        spool.vacuum()
    assert spool.unused_bytes() == 0
    assert sum(file.stat().st_size for file in spool.path.parent.iterdir()) < 200_000


def test_removing_sent_spool_rows_writes_little_to_the_write_ahead_log(spool: SpoolStore) -> None:
    spool.keep([frame("a", seq, size=100_000) for seq in range(30)])
    spool.checkpoint()
    spool.remove(list(range(1, 31)))
    assert spool.path.with_suffix(".db-wal").stat().st_size < 200_000  # a full disk must have room for the log


def test_the_spool_s_reserve_file_allocates_and_releases_disk_space(tmp_path: Path) -> None:
    reserve = Reserve(tmp_path / "spool.reserve", 1_000_000)
    assert not reserve.held
    assert reserve.fill()
    assert reserve.fill()
    assert (tmp_path / "spool.reserve").stat().st_blocks * 512 >= 1_000_000
    assert reserve.release()
    assert not reserve.release()
    assert not Reserve(tmp_path / "spool.reserve", 1 << 60).fill()  # more than the disk has
