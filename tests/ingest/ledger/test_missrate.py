"""Tests of the estimate of a gate's miss rate."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.contract.identity import LATE, LIVE, replay_lane
from ingest.contract.records import Box, Detection, FrameRef, Result
from ingest.ledger.missrate import MissCounter, shows_new_object, wilson

HERE, THERE = Box(10, 10, 50, 90), Box(200, 10, 240, 90)


def seen(*boxes: Box, score: float = 0.8) -> tuple[Detection, ...]:
    return tuple(Detection(box=box, label="car", class_id=2, score=score) for box in boxes)


def result(seq: int, detections: Sequence[Detection] = (), **values: object) -> Result:
    fields = {
        "camera": "gate",
        "epoch": 1,
        "seq": seq,
        "lane": LIVE,
        "pipeline": "cars",
        "pipelines": ("cars",),
        "captured_ns": seq,
        "finished_ns": seq,
        "width": 640,
        "height": 360,
        "source": FrameRef("frames", 0, seq),
        "outcome": "classified",
        "detections": tuple(detections),
    }
    return Result(**{**fields, **values})


def judged(*results: Result) -> tuple[int, int, int]:
    misses = MissCounter(lambda *_: False)
    for each in results:
        misses.add(each)
    rate = misses.rates["gate", "cars"]
    return rate.quiet, rate.sampled, rate.missed


def test_a_sampled_frame_is_a_miss_only_if_it_shows_a_new_or_moved_object() -> None:
    first = result(0, seen(HERE))
    assert judged(first, result(5, seen(HERE), sampled=True, withheld={"still": 4})) == (5, 1, 0)
    assert judged(first, result(5, seen(HERE, THERE), sampled=True, withheld={"still": 4})) == (5, 1, 1)
    assert judged(first, result(5, seen(THERE), sampled=True, withheld={"still": 2, "masked": 2})) == (5, 1, 1)


def test_a_frame_that_the_gate_sent_for_motion_does_not_count_as_sampled() -> None:
    assert judged(result(0), result(9, seen(HERE), withheld={"still": 5, "rate": 3})) == (5, 0, 0)


def test_only_a_confident_detection_is_a_new_object_but_a_weak_one_matches_a_known_object() -> None:
    assert not shows_new_object(seen(HERE, score=0.4), ())
    assert not shows_new_object(seen(HERE), seen(HERE, score=0.31))
    assert shows_new_object(seen(HERE), seen(Box(40, 10, 80, 90)))


def test_a_sampled_frame_without_a_classification_does_not_count_for_the_miss_rate() -> None:
    empty = result(5, outcome="empty", sampled=True, withheld={"still": 4})
    assert judged(result(0), empty) == (5, 0, 0)


def test_sampled_frames_are_compared_only_with_the_last_frame_that_was_sent_for_motion() -> None:
    """An object that appears unnoticed and stays is missed until a regular frame is sent."""
    unseen = [result(seq, seen(HERE), sampled=True) for seq in (1, 2, 3)]
    assert judged(result(0), *unseen) == (3, 3, 3)
    assert judged(result(0), *unseen, result(4, seen(HERE)), result(5, seen(HERE), sampled=True)) == (4, 4, 3)


def test_a_sampled_frame_is_not_compared_with_a_frame_before_missing_frames() -> None:
    """The frames in between became dead letters, were shed, or went to the other lane."""
    late = result(900, seen(HERE), sampled=True, lane=LATE, withheld={"still": 9})
    assert judged(result(0, lane=LATE), late)[1:] == (0, 0)
    assert judged(result(0), result(3, outcome="shed", withheld={"still": 2}), result(4, sampled=True))[1:] == (0, 0)
    assert judged(result(0), result(4, sampled=True, withheld={"still": 3}))[1:] == (1, 0)


@pytest.mark.parametrize("share", [0.01, 0.2])
def test_the_miss_rate_estimate_is_unbiased_for_any_sample_share_and_its_interval_is_valid(share: float) -> None:
    """The gate misses one object in ten, which then stays for long. A regular frame is sent now and then."""
    rng, length, runs = np.random.default_rng(3), 3000, 200
    there = np.repeat(rng.random(length // 50) < 0.1, 50)
    there[::150] = False
    true = float(np.mean(np.delete(there, np.arange(0, length, 150))))
    rates, held = [], 0
    for _ in range(runs):
        misses, last = MissCounter(lambda *_: False), -1
        for seq in np.flatnonzero((rng.random(length) < share) | (np.arange(length) % 150 == 0)).tolist():
            found, sampled = seen(HERE) if there[seq] else (), seq % 150 > 0
            misses.add(result(seq, found, sampled=sampled, withheld={"still": seq - last - 1}))
            last = seq
        rate = misses.rates["gate", "cars"]
        rates.append(rate.rate or 0.0)
        held += rate.bounds[0] <= true <= rate.bounds[1]
    assert abs(np.mean(rates) - true) < 0.01
    assert held >= 0.93 * runs


def test_sampled_frames_are_compared_within_one_capture_run_and_lane_and_replays_are_ignored() -> None:
    first, missed = result(0), result(7, seen(HERE), sampled=True, withheld={"rate": 6})
    assert judged(first, missed) == (1, 1, 1)
    assert judged(first, result(7, seen(HERE), sampled=True, epoch=2, withheld={"rate": 7})) == (1, 0, 0)
    assert judged(first, result(7, seen(HERE), sampled=True, lane=LATE)) == (1, 0, 0)
    assert judged(first, result(7, seen(HERE), sampled=True, lane=replay_lane("r1"))) == (0, 0, 0)


def test_an_object_behind_a_privacy_mask_is_not_a_miss() -> None:
    misses = MissCounter(lambda _, found: found.box == THERE)
    for each in (result(0), result(1, seen(THERE), sampled=True), result(2, seen(HERE, THERE), sampled=True)):
        misses.add(each)
    rate = misses.rates["gate", "cars"]
    assert (rate.sampled, rate.missed, rate.rate) == (2, 1, 0.5)


@pytest.mark.parametrize(
    ("hits", "trials", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),
        (1, 10, 0.0179, 0.4042),
        (50, 100, 0.4038, 0.5962),
        (10, 10, 0.7225, 1.0),
        (0, 0, 0.0, 1.0),
    ],
)
def test_the_wilson_interval_has_the_published_values(hits: int, trials: int, low: float, high: float) -> None:
    assert wilson(hits, trials) == pytest.approx((low, high), abs=5e-5)


@given(trials=st.integers(1, 10_000), share=st.floats(0, 1))
def test_the_wilson_interval_contains_the_measured_rate_and_is_symmetrical(trials: int, share: float) -> None:
    hits = round(share * trials)
    low, high = wilson(hits, trials)
    assert 0.0 <= low <= hits / trials + 1e-12
    assert hits / trials - 1e-12 <= high <= 1.0
    assert wilson(trials - hits, trials) == pytest.approx((1 - high, 1 - low))


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.3])
def test_the_wilson_interval_contains_the_true_rate_in_19_of_20_samples(rate: float) -> None:
    hits = np.random.default_rng(0).binomial(400, rate, 4000)
    held = np.mean([low <= rate <= high for low, high in (wilson(int(n), 400) for n in hits)])
    assert abs(float(held) - 0.95) < 0.02
