"""Tests of the learned time of a batch, and of the choice of its size."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.engine import ComputeClock
from engines.node.batchtime import FORGET_RUNS, RUNS_PER_SIZE, BatchTime, WaitingJob, best_count

sizes = st.lists(st.integers(1, 64), min_size=2, max_size=6, unique=True)
times = st.floats(0.0001, 1.0)


@given(sizes=sizes, slope_s=times, base_s=times)
def test_the_expected_batch_time_is_exact_if_measured_times_grow_linearly_with_the_batch_size(
    sizes: list[int], slope_s: float, base_s: float
) -> None:
    learned = BatchTime({n: slope_s * n + base_s for n in sizes})
    for rows in (1, 7, 64):
        assert learned.predict_s(rows) == pytest.approx(slope_s * rows + base_s, rel=1e-6)


@given(sizes=sizes, slope_s=times, base_s=times, seed=st.integers(0, 1000))
def test_four_slow_runs_out_of_nine_do_not_change_the_expected_batch_time(
    sizes: list[int], slope_s: float, base_s: float, seed: int
) -> None:
    learned, chance = BatchTime(), random.Random(seed)
    for n in sizes:
        factors = [1.0] * 5 + [chance.uniform(1.0, 100.0) for _ in range(RUNS_PER_SIZE - 5)]
        chance.shuffle(factors)
        for factor in factors:
            learned.observe(n, (slope_s * n + base_s) * factor)
    assert learned.predict_s(16) == pytest.approx(slope_s * 16 + base_s, rel=1e-6)


@given(sizes=sizes, slope_s=times, base_s=times, factor=st.floats(0.1, 10.0))
def test_nine_new_runs_of_each_batch_size_replace_all_earlier_measurements(
    sizes: list[int], slope_s: float, base_s: float, factor: float
) -> None:
    learned = BatchTime()
    for speed in (1.0, factor):
        for n in sizes:
            for _ in range(RUNS_PER_SIZE):
                learned.observe(n, (slope_s * n + base_s) * speed)
    assert learned.predict_s(8) == pytest.approx((slope_s * 8 + base_s) * factor, rel=1e-6)


@given(runs=st.lists(st.tuples(st.integers(1, 64), st.floats(0.0, 10.0)), max_size=60))
def test_the_expected_batch_time_is_never_negative_and_never_falls_with_the_batch_size(
    runs: list[tuple[int, float]],
) -> None:
    learned = BatchTime()
    assert learned.predict_s(5) == 0.0
    for rows, seconds in runs:
        learned.observe(rows, seconds)
    expected = [learned.predict_s(n) for n in range(1, 65)]
    assert expected[0] >= 0.0
    assert expected == sorted(expected)


def test_measurements_of_a_batch_size_that_is_no_longer_used_are_forgotten() -> None:
    learned = BatchTime({1: 1.0})
    for _ in range(FORGET_RUNS + 1):
        learned.observe(4, 0.04)
    assert learned.predict_s(1) == pytest.approx(0.01)


def in_time(jobs: Sequence[WaitingJob], count: int, most_rows: int, row_s: float, base_s: float) -> int:
    """Return the rows in time if single-row jobs run in a first batch of ``count``, then in full batches."""
    now_s, begin, size, met = 0.0, 0, count, 0
    while begin < len(jobs):
        batch = jobs[begin : begin + size]
        now_s += row_s * len(batch) + base_s
        met += sum(job.due_s >= now_s for job in batch)
        begin, size = begin + size, most_rows
    return met


@given(
    dues=st.lists(st.floats(-1.0, 3.0), min_size=1, max_size=14),
    most_rows=st.integers(1, 6),
    row_s=st.floats(0.01, 0.5),
    base_s=st.floats(0.0, 0.5),
)
def test_the_chosen_batch_size_finishes_at_least_as_many_rows_in_time_as_a_full_batch(
    dues: list[float], most_rows: int, row_s: float, base_s: float
) -> None:
    jobs = [WaitingJob(1, due) for due in sorted(dues)]
    fitting = min(len(jobs), most_rows)
    chosen = best_count(jobs, fitting, most_rows, lambda n: row_s * n + base_s)
    assert 1 <= chosen <= fitting
    assert in_time(jobs, chosen, most_rows, row_s, base_s) >= in_time(jobs, fitting, most_rows, row_s, base_s)


def test_a_smaller_batch_meets_the_first_deadline_if_a_full_batch_would_miss_it() -> None:
    jobs = [WaitingJob(1, due) for due in (0.35, 2.0, 2.0, 2.0)]
    assert best_count(jobs, 4, 4, lambda n: 0.1 * n) == 3


def test_a_full_batch_is_chosen_while_all_its_jobs_meet_their_deadlines() -> None:
    jobs = [WaitingJob(1, 1.0)] * 8
    assert best_count(jobs, 8, 8, lambda n: 0.1 * n) == 8


class TestComputeClock:
    def test_the_time_of_a_batch_that_waits_for_the_device_counts_from_the_end_of_the_previous_batch(self) -> None:
        clock = ComputeClock(1)
        clock.submitted("a", 0.0)
        clock.submitted("b", 1.0)
        assert clock.finished("a", 5.0) == 5.0
        assert clock.finished("b", 8.0) == 3.0

    def test_the_measured_time_of_a_batch_excludes_batches_on_another_worker(self) -> None:
        clock = ComputeClock(2)
        clock.submitted("a", 0.0)
        clock.submitted("b", 1.0)
        clock.submitted("c", 2.0)
        assert clock.finished("b", 4.0) == 3.0
        assert clock.finished("c", 6.0) == 2.0
        assert clock.finished("a", 9.0) == 9.0

    def test_the_time_of_a_batch_on_an_idle_device_counts_from_its_submission(self) -> None:
        clock = ComputeClock(1)
        clock.submitted("a", 0.0)
        clock.finished("a", 1.0)
        clock.submitted("a", 5.0)
        assert clock.finished("a", 7.0) == 2.0
