"""Tests of the track time, which stands still only while nothing moves."""

from __future__ import annotations

import itertools

import pytest

from ingest.contract.records import WITHHELD_REASONS, Result
from stream.analyse.tracking.tracktime import HELD_STEP_S, SET_BACK_S, TrackTime
from tests.stream.analyse.results import result_at


def result(seq: int, at_s: float, outcome: str = "classified", reason: str = "", **withheld: int) -> Result:
    return result_at(seq, at_s, outcome=outcome, reason=reason, withheld=withheld)


def steps(*results: Result) -> list[float]:
    """Return the step in track time before each result after the first."""
    time = TrackTime()
    times = [time.advance(one) for one in results]
    return [round(after - before, 6) for before, after in itertools.pairwise(times)]


def test_track_time_advances_in_real_time_over_consecutive_frames() -> None:
    assert steps(result(0, 5.0), result(1, 5.1), result(2, 5.6)) == [0.1, 0.5]


def test_track_time_does_not_advance_over_still_frames() -> None:
    empties = [result(1 + n, 0.1 * (1 + n), "empty", "still") for n in range(100)]
    assert steps(result(0, 0.0), *empties, result(101, 10.1)) == [*[0.0] * 100, 0.1]


def lived_s(*at_s: float) -> list[float]:
    time, found = TrackTime(), []
    for seq, at in enumerate(at_s):
        time.advance(result(seq, at))
        found.append(round(time.lived_ns / 1e9, 6))
    return found


def test_elapsed_track_time_continues_when_a_clock_is_set_back() -> None:
    assert lived_s(5000.0, 5001.0, 1000.0, 1001.0, 1003.0) == [0.0, 1.0, 1.0, 2.0, 4.0]


def test_elapsed_track_time_stays_right_when_results_alternate_between_two_clocks() -> None:
    assert lived_s(50.0, 48.0, 51.0, 49.0, 52.0) == [0.0, 0.0, 1.0, 1.0, 2.0]
    assert lived_s(50.0, 50.0 - SET_BACK_S, 50.5) == [0.0, 0.0, 0.5]


def test_track_time_advances_by_one_fixed_step_over_a_gap_without_motion() -> None:
    assert steps(result(0, 0.0), result(101, 60.0, still=100)) == [HELD_STEP_S]
    assert steps(result(0, 0.0), result(101, 60.0, still=50, masked=50)) == [HELD_STEP_S]
    assert steps(result(0, 0.0), result(101, 60.0, still=20, rate=80)) == [HELD_STEP_S]
    assert steps(result(0, 0.0), result(2, 0.1, still=1)) == [0.1]
    assert steps(result(0, 0.0), result(101, 60.0, "empty", "still", still=20, rate=80)) == [0.0]


def test_track_time_advances_in_real_time_over_frames_withheld_by_the_rate_limit() -> None:
    assert steps(result(0, 0.0), result(5, 0.5, rate=4), result(10, 1.0, rate=4)) == [0.5, 0.5]


@pytest.mark.parametrize("reason", [*sorted({*WITHHELD_REASONS} - {"still", "masked", "rate"}), "something-new"])
def test_track_time_advances_in_real_time_over_frames_withheld_for_a_reason_other_than_no_motion(reason: str) -> None:
    assert steps(result(0, 0.0), result(101, 3600.0, **{reason: 100})) == [3600.0]
    assert steps(result(0, 0.0), result(101, 3600.0, **{reason: 1, "still": 99})) == [3600.0]
    assert steps(result(0, 0.0), result(101, 3600.0, "empty", "still", **{reason: 100})) == [3600.0]


def test_track_time_advances_in_real_time_over_frames_shed_because_of_overload() -> None:
    shed = [result(1 + n, 1.0 + n, "shed", "stale") for n in range(100)]
    assert steps(result(0, 0.0), *shed, result(102, 100.2, rate=1)) == [*[1.0] * 100, 0.2]


def test_track_time_advances_in_real_time_over_missing_frames_without_a_withheld_reason() -> None:
    """The frames in the gap became dead letters, or were sent on the other lane."""
    assert steps(result(0, 0.0), result(50, 60.0, still=10)) == [60.0]
    assert steps(result(0, 0.0), result(50, 60.0, "empty", "still")) == [60.0]


def test_two_frames_never_have_the_same_track_time() -> None:
    assert steps(result(0, 9.0), result(1, 9.0), result(2, 3.0), result(3, 3.1)) == [0.001, 0.001, 0.1]
    assert steps(result(0, 9.0), result(1, 3.0, "shed", "stale")) == [0.0]
