"""Covers of integer intervals, with their holes and overlaps. Pure.

A cover is a multiset of numbers, added as closed intervals ``[first, last]``. A cover tiles ``[0, last]`` when the
cover holds every number of this interval exactly once. Only the points where the depth changes are stored. Therefore
intervals may be added in any order, and a long unbroken run takes two entries.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise

from ingest.exceptions import LedgerError

Interval = tuple[int, int]
"""A closed interval: first and last number."""


class Cover:
    """A multiset of numbers of at least 0."""

    def __init__(self, intervals: Iterable[Interval] = ()) -> None:
        self._steps: dict[int, int] = {}
        for first, last in intervals:
            self.add(first, last)

    def add(self, first: int, last: int) -> None:
        """Add one interval. Raise LedgerError if the interval is empty or starts below 0."""
        if first < 0 or last < first:
            raise LedgerError(f"interval {first}..{last}: expected 0 <= first <= last")
        self._step(first, 1)
        self._step(last + 1, -1)

    @property
    def last(self) -> int:
        """Highest number in the cover, -1 for an empty cover."""
        return max(self._steps, default=0) - 1

    def runs(self) -> Iterator[tuple[int, int, int]]:
        """Yield (first, last, depth) of every run of equal depth, in order. Holes between runs have depth 0."""
        depth, points = 0, sorted(self._steps)
        for point, following in pairwise(points):
            depth += self._steps[point]
            yield point, following - 1, depth

    def holes(self, first: int, last: int) -> list[Interval]:
        """Return the uncovered intervals within ``[first, last]``, in order."""
        found, at = [], first
        for a, b, depth in self.runs():
            if depth == 0 or b < at:
                continue
            if a > last:
                break
            if a > at:
                found.append((at, a - 1))
            at = b + 1
        return [*found, (at, last)] if at <= last else found

    def overlaps(self) -> list[Interval]:
        """Return the intervals covered more than once, in order, repeated for each additional time."""
        return [(a, b) for a, b, depth in self.runs() for _ in range(depth - 1)]

    def _step(self, at: int, change: int) -> None:
        after = self._steps.get(at, 0) + change
        if after:
            self._steps[at] = after
        else:
            del self._steps[at]


def common(some: Iterable[Interval], others: Iterable[Interval]) -> list[Interval]:
    """Return the numbers in both sets of intervals, as intervals in order, each number once."""
    both = Cover((max(a, c), min(b, d)) for a, b in some for c, d in list(others) if max(a, c) <= min(b, d))
    return [(a, b) for a, b, depth in both.runs() if depth]


def length(intervals: Iterable[Interval]) -> int:
    """Return the sum of the intervals' lengths."""
    return sum(last - first + 1 for first, last in intervals)
