"""Tests of matching detected line crossings with the ground truth."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from deploy.local.demo.truth import TOLERANCE_NS, LineCrossing, score

SECOND = 1_000_000_000
CROSSINGS = st.lists(
    st.builds(
        LineCrossing,
        camera=st.sampled_from(["road", "yard"]),
        direction=st.sampled_from(["in", "out"]),
        at_ns=st.integers(0, 30 * SECOND),
        label=st.sampled_from(["car", "bus"]),
    ),
    max_size=12,
)


def at(seconds: float, camera: str = "road", direction: str = "in", label: str = "car") -> LineCrossing:
    return LineCrossing(camera, direction, int(seconds * SECOND), label)


@given(CROSSINGS)
def test_the_ground_truth_matched_with_itself_has_no_errors(truth: list[LineCrossing]) -> None:
    found = score(truth, list(reversed(truth)))
    assert (found.line_crossings, found.found, found.false) == (len(truth), len(truth), 0)


@given(CROSSINGS, CROSSINGS)
def test_matching_events_to_true_crossings_counts_every_crossing_and_event_once(
    truth: list[LineCrossing], events: list[LineCrossing]
) -> None:
    found = score(truth, events)
    assert found.found + found.false == len(events)
    assert found.labels_right <= found.found <= found.line_crossings == len(truth)


def test_two_events_for_one_true_crossing_count_as_one_found_and_one_false() -> None:
    found = score([at(5)], [at(5.2), at(5.9)])
    assert (found.found, found.false) == (1, 1)


def test_the_true_crossing_and_the_event_nearest_in_time_are_matched_first() -> None:
    found = score([at(5, label="car"), at(6, label="bus")], [at(5.1, label="car"), at(6.1, label="bus")])
    assert (found.found, found.labels_right) == (2, 2)


def test_an_event_matches_no_true_crossing_of_another_camera_direction_or_time() -> None:
    wrong = [at(5, camera="yard"), at(5, direction="out"), at(5 + 2 * TOLERANCE_NS / SECOND)]
    found = score([at(5)], wrong)
    assert (found.found, found.false) == (0, 3)


def test_a_line_crossing_reported_with_a_wrong_label_counts_as_found_and_mislabelled() -> None:
    found = score([at(5, label="car")], [at(5, label="bus")])
    assert (found.found, found.labels_right) == (1, 0)


def nearest_first(truth: list[LineCrossing], events: list[LineCrossing]) -> set[tuple[int, int]]:
    """Match one camera's crossings by comparing all pairs: a slow reference implementation."""
    pairs = sorted((abs(t.at_ns - e.at_ns), i, j) for i, t in enumerate(truth) for j, e in enumerate(events))
    matched: set[tuple[int, int]] = set()
    for distance_ns, i, j in pairs:
        if distance_ns <= TOLERANCE_NS and i not in {a for a, _ in matched} and j not in {b for _, b in matched}:
            matched.add((i, j))
    return matched


@given(CROSSINGS, CROSSINGS)
def test_matching_events_to_crossings_equals_a_comparison_of_all_pairs(
    truth: list[LineCrossing], events: list[LineCrossing]
) -> None:
    truth, events = (sorted(replace(c, camera="road", direction="in") for c in each) for each in (truth, events))
    matched = nearest_first(truth, events)
    found = score(truth, events)
    assert found.found == len(matched)
    assert found.labels_right == sum(truth[i].label == events[j].label for i, j in matched)


def test_an_event_matches_a_crossing_at_exactly_the_time_tolerance() -> None:
    edge = TOLERANCE_NS / SECOND
    assert score([at(10)], [at(10 + edge)]).found == score([at(10)], [at(10 - edge)]).found == 1


def test_thousands_of_line_crossings_are_compared_in_little_memory() -> None:
    truth = [at(4 * number) for number in range(1_000)]
    events = [at(4 * number + 0.4) for number in range(1_000)]
    tracemalloc.start()
    try:
        found = score(truth, events)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (found.found, found.false) == (1_000, 0)
    assert peak < 5_000_000
