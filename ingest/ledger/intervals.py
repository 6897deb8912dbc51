"""Multisets of integers that are stored as intervals, to find missing numbers and numbers that occur twice. Pure.

A cover is a multiset of integers, to which closed intervals ``[first, last]`` are added. A cover has no holes and no
overlaps in ``[0, last]`` when it contains every number of this interval exactly once. Because a cover stores only the
numbers at which the multiplicity changes, intervals may be added in any order, and a long interval without gaps takes
only two entries.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise

from ingest.exceptions import LedgerError

Interval = tuple[int, int]
"""A closed interval: (first number, last number)."""


class Cover:
    """A multiset of non-negative integers, stored as intervals."""

    def __init__(self, intervals: Iterable[Interval] = ()) -> None:
        self._steps: dict[int, int] = {}
        for first, last in intervals:
            self.add(first, last)

    def add(self, first: int, last: int) -> None:
        """Add one interval. Raise LedgerError if the interval is empty or starts below 0."""
        if first < 0 or last < first:
            raise LedgerError(f"interval {first}..{last} of frame numbers: expected 0 <= first <= last")
        self._step(first, 1)
        self._step(last + 1, -1)

    @property
    def last(self) -> int:
        """The highest number in the cover, -1 if the cover is empty."""
        return max(self._steps, default=0) - 1

    def runs(self) -> Iterator[tuple[int, int, int]]:
        """Yield (first, last, depth) for each interval of numbers that occur equally often, in order.

        ``depth`` is the number of occurrences, 0 for a hole.
        """
        depth, points = 0, sorted(self._steps)
        for point, following in pairwise(points):
            depth += self._steps[point]
            yield point, following - 1, depth

    def holes(self, first: int, last: int) -> list[Interval]:
        """Return the intervals of numbers in ``[first, last]`` that are not in the cover, in order."""
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
        """Return the intervals of numbers that occur more than once, in order.

        An interval whose numbers occur n times is returned n - 1 times.
        """
        return [(a, b) for a, b, depth in self.runs() for _ in range(depth - 1)]

    def _step(self, at: int, change: int) -> None:
        after = self._steps.get(at, 0) + change
        if after:
            self._steps[at] = after
        else:
            del self._steps[at]


def common(some: Iterable[Interval], others: Iterable[Interval]) -> list[Interval]:
    """Return the numbers that occur in both lists of intervals, as ordered intervals without overlaps."""
    both = Cover((max(a, c), min(b, d)) for a, b in some for c, d in list(others) if max(a, c) <= min(b, d))
    return [(a, b) for a, b, depth in both.runs() if depth]


def length(intervals: Iterable[Interval]) -> int:
    """Return the total length of all intervals."""
    return sum(last - first + 1 for first, last in intervals)
