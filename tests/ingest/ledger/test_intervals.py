"""Tests of the interval algebra."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.exceptions import LedgerError
from ingest.ledger.intervals import Cover, Interval, common, length


@st.composite
def intervals(draw: st.DrawFn) -> Interval:
    first = draw(st.integers(0, 60))
    return first, first + draw(st.integers(0, 15))


@st.composite
def partitions(draw: st.DrawFn) -> list[Interval]:
    """Draw pieces that cover ``[0, last]`` exactly once, in any order."""
    lengths = draw(st.lists(st.integers(1, 12), min_size=1, max_size=25))
    starts = [sum(lengths[:i]) for i in range(len(lengths))]
    pieces = [(start, start + size - 1) for start, size in zip(starts, lengths, strict=True)]
    return draw(st.permutations(pieces))


def depths(pieces: list[Interval]) -> Counter[int]:
    return Counter(number for first, last in pieces for number in range(first, last + 1))


def numbers(found: list[Interval]) -> list[int]:
    return sorted(number for first, last in found for number in range(first, last + 1))


@given(partitions())
def test_adjacent_intervals_added_in_any_order_leave_no_holes_or_overlaps(pieces: list[Interval]) -> None:
    cover = Cover(pieces)
    last = max(last for _, last in pieces)
    assert cover.last == last
    assert cover.holes(0, last) == []
    assert cover.overlaps() == []
    assert list(cover.runs()) == [(0, last, 1)]


@given(partitions(), st.data())
def test_numbers_missing_in_an_interval_are_a_hole(pieces: list[Interval], data: st.DataObject) -> None:
    dropped = data.draw(st.sampled_from(pieces))
    rest = Cover(piece for piece in pieces if piece != dropped)
    assert rest.holes(0, max(last for _, last in pieces)) == [dropped]
    assert rest.overlaps() == []


@given(partitions(), st.data())
def test_numbers_added_twice_to_an_interval_are_an_overlap(pieces: list[Interval], data: st.DataObject) -> None:
    doubled = data.draw(st.sampled_from(pieces))
    cover = Cover([*pieces, doubled])
    assert cover.overlaps() == [doubled]
    assert cover.holes(0, cover.last) == []


@given(st.lists(intervals()), st.randoms())
def test_an_interval_cover_does_not_depend_on_the_order_of_added_intervals(
    pieces: list[Interval], shuffled: random.Random
) -> None:
    other = list(pieces)
    shuffled.shuffle(other)
    assert list(Cover(pieces).runs()) == list(Cover(other).runs())


@given(st.lists(intervals()), intervals())
def test_holes_and_overlaps_of_intervals_match_a_count_of_each_number(
    pieces: list[Interval], within: Interval
) -> None:
    cover, depth = Cover(pieces), depths(pieces)
    assert numbers(cover.holes(*within)) == [n for n in range(within[0], within[1] + 1) if not depth[n]]
    assert numbers(cover.overlaps()) == sorted(n for n, times in depth.items() for _ in range(times - 1))
    assert length(cover.overlaps()) == sum(times - 1 for times in depth.values())
    assert cover.last == max(depth, default=-1)


@given(st.lists(intervals()), st.lists(intervals()))
def test_the_intersection_of_two_sets_of_intervals_has_the_numbers_that_are_in_both(
    some: list[Interval], others: list[Interval]
) -> None:
    assert numbers(common(some, others)) == sorted(set(depths(some)) & set(depths(others)))


@given(st.lists(intervals()))
def test_holes_between_intervals_are_maximal_and_in_order(pieces: list[Interval]) -> None:
    holes = Cover(pieces).holes(0, 80)
    assert all(a_last + 1 < b_first for (_, a_last), (b_first, _) in pairwise(holes))


def test_a_long_unbroken_run_of_numbers_is_stored_as_two_entries() -> None:
    cover = Cover()
    for frame in range(10, 10_000, 10):  # a kept frame, then the account of the frames withheld before it
        cover.add(frame, frame)
        cover.add(frame - 9, frame - 1)
    assert len(cover._steps) == 2


def test_an_empty_interval_cover_has_one_hole_over_the_whole_range() -> None:
    cover = Cover()
    assert (cover.last, cover.overlaps(), cover.holes(0, -1)) == (-1, [], [])
    assert cover.holes(3, 5) == [(3, 5)]


@pytest.mark.parametrize("interval", [(-1, 3), (4, 3)])
def test_an_empty_or_negative_interval_is_refused(interval: Interval) -> None:
    with pytest.raises(LedgerError, match="expected 0 <= first <= last"):
        Cover([interval])
