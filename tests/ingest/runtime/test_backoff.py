"""Tests of the pauses between restarts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ingest.runtime.backoff import BASE_S, CAP_S, Backoff, delay_s


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_a_back_off_pause_is_capped_and_at_least_half_of_the_pause_without_jitter(
    failures: int, chance: float
) -> None:
    whole_s = min(CAP_S, BASE_S * 2 ** min(failures - 1, 60))
    assert 0.0 < whole_s / 2 <= delay_s(failures, chance) <= whole_s <= CAP_S


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_a_back_off_pause_never_shrinks_with_more_failures(failures: int, chance: float) -> None:
    assert delay_s(failures + 1, chance) >= delay_s(failures, chance)


def test_an_outage_lasts_from_the_first_failure_until_a_restarted_process_stays_up() -> None:
    backoff = Backoff()
    assert (backoff.out, backoff.steady(5.0)) == (False, None)
    assert [backoff.failed(at_s, 0.0) for at_s in (10.0, 11.0, 13.0)] == [BASE_S, 2 * BASE_S, 4 * BASE_S]
    assert (backoff.out, backoff.failures) == (True, 3)
    assert backoff.steady(17.5) == 7.5
    assert (backoff.out, backoff.failures, backoff.steady(18.0)) == (False, 0, None)
    assert backoff.failed(20.0, 0.0) == BASE_S


def test_back_off_pauses_grow_up_to_a_limit_in_a_long_outage_and_begin_small_in_the_next_outage() -> None:
    backoff = Backoff(long_cap_s=60.0)
    pauses = {at_s: backoff.failed(at_s, 0.0) for at_s in (*range(0, 101, 10), 300.0, 600.0, 86_400.0)}
    assert [pauses[at_s] for at_s in (90, 100, 300.0, 600.0, 86_400.0)] == [CAP_S, CAP_S, 30.0, 60.0, 60.0]
    backoff.steady(86_500.0)
    assert backoff.failed(90_000.0, 0.0) == BASE_S
