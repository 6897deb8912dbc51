"""Tests of the choice between stream clock and host clock. Frame times must not jump or go back."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.gate.gate import Rate
from edge_agent.sources.rtsp.clock import FrameTime, StreamClock

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND
STEP = SECOND // 10


def arrivals(count: int) -> list[int]:
    return [START + n * STEP for n in range(count)]


def test_frame_times_come_from_the_host_clock_with_unknown_error_if_a_stream_has_no_rtcp_sender_reports() -> None:
    times = StreamClock(2.0)
    assert [times.stamp(at, None) for at in arrivals(3)] == [FrameTime(at, "host", None) for at in arrivals(3)]
    assert not times.refused


def test_the_error_bound_of_a_stream_clock_time_is_its_difference_from_the_host_clock() -> None:
    times = StreamClock(2.0)
    stamps = [times.stamp(at, at - 120_000_000) for at in arrivals(3)]
    assert [s.captured_ns for s in stamps] == [at - 120_000_000 for at in arrivals(3)]
    assert {(s.source, s.error_ms) for s in stamps} == {("stream", 120.0)}


def test_frame_times_move_gradually_from_the_host_clock_to_the_stream_clock() -> None:
    times, delay = StreamClock(2.0), 400_000_000
    stamps = [times.stamp(at, None if n < 5 else at - delay) for n, at in enumerate(arrivals(60))]
    steps = [b.captured_ns - a.captured_ns for a, b in pairwise(stamps)]
    assert min(steps) >= 0.9 * STEP - 1
    assert max(steps) == STEP
    assert [s.source for s in stamps[4:6]] == ["host", "stream"]
    assert stamps[-1] == FrameTime(START + 59 * STEP - delay, "stream", 400.0)


def test_a_stream_clock_with_a_large_skew_is_not_used_until_its_skew_is_well_below_the_limit() -> None:
    times = StreamClock(2.0)
    assert times.stamp(START, START - 3600 * SECOND) == FrameTime(START, "host", None)
    assert times.refused
    assert times.stamp(START + STEP, START + STEP - round(1.9 * SECOND)).source == "host"
    assert times.stamp(START + 2 * STEP, START + 2 * STEP - SECOND).source == "stream"
    assert not times.refused


def test_frame_times_do_not_jump_when_the_camera_clock_is_set_by_an_hour() -> None:
    times = StreamClock(2.0)
    stamps = [times.stamp(at, at - (0 if n < 5 else 3600 * SECOND)) for n, at in enumerate(arrivals(10))]
    assert [s.captured_ns for s in stamps] == arrivals(10)
    assert [s.source for s in stamps] == ["stream"] * 5 + ["host"] * 5


def test_during_a_clock_switch_the_error_bound_covers_both_the_stream_clock_and_the_host_clock() -> None:
    """The first frames get the host's time. The true time is the stream's time, which is 400 ms earlier."""
    times, delay = StreamClock(2.0), 400_000_000
    stamps = [(at, times.stamp(at, None if n < 5 else at - delay)) for n, at in enumerate(arrivals(60))]
    spread = [(at, stamp) for at, stamp in stamps if stamp.source == "stream"]
    assert spread[0][1].captured_ns > START + 5 * STEP - STEP // 2
    for at, stamp in spread:
        assert stamp.error_ms is not None
        assert stamp.error_ms >= abs(stamp.captured_ns - (at - delay)) / 1e6
        assert stamp.error_ms >= abs(stamp.captured_ns - at) / 1e6


@pytest.mark.parametrize("skew", [None, 100_000_000, -3600 * SECOND])
def test_the_rate_limit_passes_frames_after_the_host_clock_is_set_back(skew: int | None) -> None:
    """The host clock is set back by an hour.

    If frame times stood still for that hour, no frame would pass the gate.
    """
    times, rate, passed = StreamClock(2.0), Rate(5.0), 0
    for n, at in enumerate(arrivals(100)):
        back = 3600 * SECOND if n >= 50 else 0
        stamp = times.stamp(at - back, None if skew is None else at - skew)
        assert abs(stamp.captured_ns - (at - back)) <= 0.1 * SECOND
        if rate.due(stamp.captured_ns):
            rate.take(stamp.captured_ns)
            passed += n >= 50
    assert passed >= 25


def test_frame_times_follow_a_camera_clock_that_is_set_back_within_the_allowed_skew() -> None:
    times = StreamClock(7200.0)
    stamps = [times.stamp(at, at - (0 if n < 5 else 3600 * SECOND)) for n, at in enumerate(arrivals(10))]
    assert [s.captured_ns for s in stamps[5:]] == [at - 3600 * SECOND for at in arrivals(10)[5:]]


@given(
    waits=st.lists(st.integers(0, 3 * SECOND), min_size=1, max_size=40),
    skews=st.lists(st.none() | st.integers(-5 * SECOND, 5 * SECOND), min_size=40, max_size=40),
)
def test_frame_times_increase_unless_a_clock_is_set_back_and_stay_near_the_arrival_time(
    waits: list[int], skews: list[int | None]
) -> None:
    times, at, last = StreamClock(2.0), START, 0
    for wait, skew in zip(waits, skews, strict=False):
        at += wait
        stamp = times.stamp(at, None if skew is None else at - skew)
        assert stamp.captured_ns > last or stamp.captured_ns < last - 10 * SECOND
        assert abs(stamp.captured_ns - at) <= 8 * SECOND
        last = stamp.captured_ns
