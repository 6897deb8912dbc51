"""Tests of the filter of a box, of the overlaps of boxes, and of the assignment of boxes to tracks."""

from __future__ import annotations

import random
from itertools import permutations

import numpy as np
import pytest

from ingest.contract.records import Box, Detection
from stream.analyse.tracking.boxfilter import BoxFilter, Edges, overlaps
from stream.analyse.tracking.overlaps import ONE_OBJECT, one_per_object
from stream.analyse.tracking.tracker import ByteTracker
from tests.stream.analyse.results import result_at


def any_boxes(rng: random.Random, count: int, size_px: float = 60.0) -> list[Box]:
    """Return boxes of up to ``size_px``, some of which have no area."""
    corners = [(rng.uniform(0.0, 300.0), rng.uniform(0.0, 200.0)) for _ in range(count)]
    sizes = [(max(rng.uniform(-10.0, size_px), 0.0), rng.uniform(1.0, size_px)) for _ in range(count)]
    return [Box(x, y, x + width, y + height) for (x, y), (width, height) in zip(corners, sizes, strict=True)]


def test_the_filter_of_a_box_is_the_kalman_filter_in_the_form_of_matrices() -> None:
    rng = random.Random(3)
    found = BoxFilter((0.0, 0.0, 60.0, 40.0))
    state, spread = np.array([(0.0, 0.0, 60.0, 40.0), (0.0, 0.0, 0.0, 0.0)]), np.diag([0.1**2, 2.0**2])
    for frame in range(20):
        step_s = rng.uniform(0.05, 0.5)
        move = np.array([(1.0, step_s), (0.0, 1.0)])
        noise = np.array([(step_s**3 / 3, step_s**2 / 2), (step_s**2 / 2, step_s)])
        state, spread = move @ state, move @ spread @ move.T + noise
        found.predict(step_s)
        assert found.box == pytest.approx(state[0])
        if frame % 3 == 2:
            continue  # a frame without a detection
        measured: Edges = tuple(rng.gauss(5.0 * frame + edge, 2.0) for edge in (0.0, 0.0, 60.0, 40.0))  # type: ignore[assignment]
        gain = spread[:, 0] / (spread[0, 0] + 0.1**2)
        state = state + np.outer(gain, np.array(measured) - state[0])
        spread = spread - np.outer(gain, spread[0])
        found.update(measured)
        assert found.box == pytest.approx(state[0])


@pytest.mark.parametrize(("one", "other"), [(0, 3), (3, 0), (1, 1), (4, 3), (40, 50)])
def test_exactly_the_pairs_of_boxes_that_overlap_with_their_margins_are_compared(one: int, other: int) -> None:
    rng = random.Random(one)
    boxes, others = any_boxes(rng, one), any_boxes(rng, other, 90.0)
    expected = {
        (row, column): box.widened(0.3).iou(other.widened(0.3))
        for row, box in enumerate(boxes)
        for column, other in enumerate(others)
        if box.widened(0.3).shared(other.widened(0.3)) > 0.0
    }
    found = {(row, column): overlap for row, column, overlap in overlaps(boxes, others, 0.3)}
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(10))
def test_boxes_close_together_continue_the_tracks_with_the_largest_sum_of_overlaps(seed: int) -> None:
    rng = random.Random(seed)
    before = [Box(x, 100.0, x + 60.0, 140.0) for x in (100.0, 120.0, 145.0, 160.0)]
    after = [Box(x, 100.0, x + 60.0, 140.0) for x in (rng.uniform(90.0, 170.0) for _ in before)]
    found = [Detection(box=box, label="car", class_id=1, score=0.9) for box in before]
    tracker = ByteTracker()
    for frame in range(5):  # the tracks stand still, so they are expected at the same place
        tracks = tracker.step(found, 0.2 * frame, f"1-{frame}")
    at = {track.name: before.index(track.box) for track in tracks}
    moved = [Detection(box=box, label="car", class_id=1, score=0.9) for box in after]
    places = [
        (at[track.name], after.index(track.box)) for track in tracker.step(moved, 1.0, "1-5") if track.name in at
    ]

    def total(pairs: list[tuple[int, int]]) -> float:
        return sum(before[row].widened(0.3).iou(after[column].widened(0.3)) for row, column in pairs)

    assert len(places) == len(before)
    best = max(total(list(enumerate(order))) for order in permutations(range(len(after))))
    assert total(places) == pytest.approx(best)


def test_boxes_whose_areas_underflow_have_no_overlap() -> None:
    tiny = Box(0.0, 0.0, 1e-170, 1e-170)
    assert list(overlaps([tiny], [tiny], 0.3)) == [(0, 0, 0.0)]


def test_a_track_does_not_continue_at_a_box_that_it_does_not_overlap() -> None:
    """The first object stays and the second disappears, while a third appears on the other side of the first."""
    tracker = ByteTracker()
    first, second, third = (
        Detection(box=Box(x, 100.0, x + 60.0, 140.0), label="car", class_id=1, score=0.9)
        for x in (100.0, 150.0, 50.0)
    )
    for frame in range(5):
        names = [track.name for track in tracker.step([first, second], 0.2 * frame, f"1-{frame}")]
    assert names == ["1-1-0", "1-1-1"]
    assert [track.name for track in tracker.step([first, third], 1.0, "1-5")] == ["1-1-0"]


@pytest.mark.parametrize("count", [0, 1, 2, 40])
def test_detections_of_one_object_are_reduced_in_the_order_of_their_scores(count: int) -> None:
    rng = random.Random(count)
    boxes = any_boxes(rng, count)
    boxes += [Box(*(edge + rng.uniform(-4.0, 4.0) for edge in box)) for box in boxes]
    found = [Detection(box=box, label="car", class_id=1, score=rng.random()) for box in boxes]
    kept: list[Detection] = []
    for one in sorted(found, key=lambda each: -each.score):
        if all(one.box.iou(other.box) < ONE_OBJECT for other in kept):
            kept.append(one)
    expected = tuple(one for one in found if one in kept)
    assert one_per_object(result_at(0, 0.0, *found)) == expected
    assert len(expected) < len(found) or count < 40
