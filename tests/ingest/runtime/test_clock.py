"""Clocks, deadlines and pauses."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ingest.runtime.backoff import BASE_S, CAP_S, Backoff, delay_s
from ingest.runtime.clock import Deadline, ManualClock, SystemClock


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


def test_pauses_grow_with_a_long_outage_up_to_a_bound_and_begin_anew_after_it() -> None:
    backoff = Backoff(long_cap_s=60.0)
    pauses = {at_s: backoff.failed(at_s, 0.0) for at_s in (*range(0, 101, 10), 300.0, 600.0, 86_400.0)}
    assert [pauses[at_s] for at_s in (90, 100, 300.0, 600.0, 86_400.0)] == [CAP_S, CAP_S, 30.0, 60.0, 60.0]
    backoff.steady(86_500.0)
    assert backoff.failed(90_000.0, 0.0) == BASE_S
