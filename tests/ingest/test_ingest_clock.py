"""Clocks, deadlines and pauses."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ingest.backoff import CAP_S, Backoff, delay_s
from ingest.clock import Deadline, ManualClock, SystemClock


def test_a_manual_clock_moves_when_it_is_told_to() -> None:
    clock = ManualClock()
    start_ns = clock.now_ns()
    clock.advance(1.5)
    assert (clock.monotonic(), clock.now_ns() - start_ns) == (1.5, 1_500_000_000)


def test_the_system_clock_goes_on() -> None:
    clock = SystemClock()
    assert clock.monotonic() <= clock.monotonic()
    assert clock.now_ns() > 1_700_000_000_000_000_000


def test_a_deadline_is_shared_down_a_chain_of_calls() -> None:
    clock = ManualClock()
    deadline = Deadline.after(2.0, clock)
    assert (deadline.left, deadline.passed) == (2.0, False)
    clock.advance(1.5)
    assert deadline.left == 0.5
    clock.advance(1.0)
    assert (deadline.left, deadline.passed) == (0.0, True)


@given(st.integers(1, 10_000), st.floats(0.0, 1.0, exclude_max=True))
def test_pauses_are_capped_and_jittered(failures: int, chance: float) -> None:
    assert 0.0 < delay_s(failures, chance) <= CAP_S
    assert delay_s(failures, chance) >= delay_s(failures, 0.0) / 2
    assert delay_s(failures + 1, 0.0) >= delay_s(failures, 0.0)


def test_an_outage_has_a_beginning_and_an_end() -> None:
    backoff = Backoff()
    assert (backoff.out, backoff.steady(5.0)) == (False, None)
    backoff.failed(10.0, 0.0)
    backoff.failed(20.0, 0.0)
    assert (backoff.out, backoff.failures) == (True, 2)
    assert backoff.steady(31.0) == 21.0
    assert (backoff.out, backoff.failures) == (False, 0)
