"""Tests of the in-flight window, the pace of the backlog, and the notices of refusals."""

from __future__ import annotations

from edge_agent.send.sender import REPORT_EVERY_S, Refusals
from edge_agent.send.window import MAX_BATCH_BYTES, MIN_BATCH_BYTES, BacklogPace, BatchLimit, InFlightWindow
from edge_agent.spool.schema import Row
from ingest.contract.identity import LATE
from ingest.runtime.clock import ManualClock


def test_the_byte_rate_of_the_backlog_is_limited_only_while_live_frames_are_sent() -> None:
    pace = BacklogPace(1000)
    pace.spend(5000)
    assert pace.wait_s(10.0) == 0.0  # no live frame has come
    pace.live(10.0)
    pace.spend(5000)
    sent = 0
    for tenth in range(100, 119):
        if not pace.wait_s(tenth / 10):
            pace.spend(300)
            sent += 300
    assert sent == 0  # the bytes of 4 s were spent at once
    pace.live(14.0)
    assert pace.wait_s(14.5) == 0.0
    assert BacklogPace(0).wait_s(0.0) == 0.0


def test_the_batch_size_follows_the_measured_byte_rate_of_the_link() -> None:
    limit = BatchLimit(0.0)
    limit.acked(1_000_000, 0.05)
    assert limit.bytes == MIN_BATCH_BYTES  # too early to tell
    limit.acked(1_000_000, 0.1)
    assert limit.bytes == MAX_BATCH_BYTES
    limit.acked(400_000, 0.3)
    assert limit.bytes == 100_000  # 2 MB/s
    limit.acked(8_000, 1.3)
    assert limit.bytes == MIN_BATCH_BYTES


def test_the_window_of_bytes_in_flight_counts_late_rows_separately() -> None:
    window = InFlightWindow(100, 25)
    window.add(1, 30, late=True)
    assert (window.room, window.late_room) == (True, False)
    window.add(2, 70, late=False)
    assert not window.room
    window.done(1)
    window.done(3)
    assert (window.room, window.late_room, len(window)) == (True, True, 1)
    window.add(4, 30, late=False)
    window.add(4, 30, late=False)
    assert window.free_bytes == 0
    assert (window.room, window.late_room) == (False, False)  # live rows fill it


def test_many_refused_spool_rows_are_reported_in_few_status_records() -> None:
    clock = ManualClock()
    refusals = Refusals(clock)
    for seq in range(50):
        refusals.add(Row("frame", "a", 5, seq, 0, b"", id=seq, lane=LATE), "too large")
    taken = refusals.take()
    assert [row_id for row_id, _ in taken] == list(range(50))
    assert [notice for _, notice in taken if notice] == [
        "refused records that stay in the spool: 1 (frame a/5/0): too large"
    ]
    clock.advance(REPORT_EVERY_S)
    refusals.add(Row("frame", "a", 5, 50, 0, b"", id=50), "too large")
    ((_, notice),) = refusals.take()
    assert notice.startswith("refused records that stay in the spool: 50 (frame a/5/1, frame a/5/2")
    assert refusals.take() == []
