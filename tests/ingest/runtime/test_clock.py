"""Tests of clocks and deadlines."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

from ingest.runtime.clock import Deadline, ManualClock, SystemClock, unix_ns


def test_a_unix_time_is_exact_to_the_microsecond_and_uses_the_zone_only_without_an_offset() -> None:
    berlin, second_ns = ZoneInfo("Europe/Berlin"), 1_796_004_000 * 10**9
    assert unix_ns(datetime.fromisoformat("2026-11-30T02:00:00.123457")) == second_ns + 123_457_000
    assert unix_ns(datetime.fromisoformat("2026-11-30T03:00:00"), berlin) == second_ns
    assert unix_ns(datetime.fromisoformat("2026-11-30T02:00:00Z"), berlin) == second_ns
    assert unix_ns(datetime.fromisoformat("1969-12-31T23:59:59.999999Z")) == -1000


def test_a_manual_clock_moves_only_when_it_is_advanced() -> None:
    clock = ManualClock()
    start_ns = clock.now_ns()
    clock.advance(1.5)
    assert (clock.monotonic(), clock.now_ns() - start_ns) == (1.5, 1_500_000_000)


def test_the_system_clock_never_goes_back() -> None:
    clock = SystemClock()
    assert clock.monotonic() <= clock.monotonic()
    assert clock.now_ns() > 1_700_000_000_000_000_000


def test_a_deadline_counts_down_and_never_goes_negative() -> None:
    clock = ManualClock()
    deadline = Deadline.after(2.0, clock)
    assert (deadline.left, deadline.passed) == (2.0, False)
    clock.advance(1.5)
    assert deadline.left == 0.5
    clock.advance(1.0)
    assert (deadline.left, deadline.passed) == (0.0, True)
