"""Tests that commits never pass an unfinished or dropped record."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.exceptions import UnknownOffset
from ingest.kafka.acks import AckTracker


@st.composite
def _history(draw: st.DrawFn) -> tuple[int, list[int], list[int]]:
    """Draw a start, ascending offsets with gaps, and the order in which they are finished."""
    start = draw(st.integers(0, 100))
    gaps = draw(st.lists(st.integers(1, 4), max_size=30))
    offsets, at = [], start - 1
    for gap in gaps:
        at += gap
        offsets.append(at)
    return start, offsets, draw(st.permutations(offsets))


@given(_history())
def test_the_commit_position_never_passes_an_unfinished_record_and_reaches_the_end(
    history: tuple[int, list[int], list[int]],
) -> None:
    start, offsets, order = history
    tracker = AckTracker(start)
    assert all(tracker.deliver(offset) for offset in offsets)
    left, before = set(offsets), start
    for offset in order:
        left.remove(offset)
        position = tracker.finish([offset])
        assert position == tracker.position
        assert before <= position  # the position never decreases
        assert all(position <= o for o in left)  # the position never passes an open record
        assert tracker.open >= len(left)
        before = position
    assert tracker.position == (offsets[-1] + 1 if offsets else start)
    assert tracker.open == 0


@given(_history(), st.randoms())
def test_the_commit_position_never_passes_an_unfinished_record_when_deliveries_interleave(
    history: tuple[int, list[int], list[int]], dice: object
) -> None:
    start, offsets, _ = history
    tracker, open_, waiting = AckTracker(start), [], list(offsets)
    while waiting or open_:
        if waiting and (not open_ or dice.random() < 0.5):  # type: ignore[attr-defined]
            offset = waiting.pop(0)
            assert tracker.deliver(offset)
            open_.append(offset)
        else:
            tracker.finish([open_.pop(dice.randrange(len(open_)))])  # type: ignore[attr-defined]
        assert all(tracker.position <= offset for offset in [*open_, *waiting])


def test_a_record_with_a_repeated_offset_is_not_processed_again() -> None:
    tracker = AckTracker(10)
    assert not tracker.deliver(9)  # finished before this process started
    assert tracker.deliver(10)
    assert not tracker.deliver(10)
    tracker.finish([10])
    assert not tracker.deliver(10)


@pytest.mark.parametrize("offsets", [[11], [10, 10], [12]])
def test_finishing_an_offset_that_is_not_open_raises_unknown_offset(offsets: list[int]) -> None:
    tracker = AckTracker(10)
    tracker.deliver(10)
    tracker.deliver(12)
    tracker.finish([12])
    with pytest.raises(UnknownOffset):
        tracker.finish(offsets)
