"""Covers of integer intervals: what is covered, where there are holes, what is covered twice. Pure.

A cover is a multiset of closed intervals ``[first, last]``. It tiles ``[0, last]`` when every number is in exactly
one of them. Adding is commutative and associative, so the order in which topics are read does not matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

__all__ = ["Cover", "Interval", "length"]

Interval = tuple[int, int]
"""A closed interval, first and last."""


@dataclass
class Cover:
    """A multiset of closed intervals. Neighbours that are added in order are merged, so a long run stays small."""

    _intervals: list[Interval] = field(default_factory=list)

    def add(self, first: int, last: int) -> None:
        """Add one interval. Raise ValueError if it is empty or begins below 0."""
        if first < 0 or last < first:
            raise ValueError(f"interval {first}..{last}: expected 0 <= first <= last")
        if self._intervals and self._intervals[-1][1] + 1 == first:
            self._intervals[-1] = (self._intervals[-1][0], last)
        else:
            self._intervals.append((first, last))

    @property
    def last(self) -> int:
        """The highest number covered, -1 when nothing is."""
        return max((last for _, last in self._intervals), default=-1)

    @property
    def first(self) -> int:
        """The lowest number covered, 0 when nothing is."""
        return min((first for first, _ in self._intervals), default=0)

    def holes(self, first: int, last: int) -> list[Interval]:
        """Return the intervals of ``[first, last]`` that nothing covers, in order."""
        return [(a, b) for a, b, depth in self._depths(first, last) if depth == 0]

    def overlaps(self) -> list[Interval]:
        """Return the intervals that are covered more than once, in order, once for each time too many."""
        return [(a, b) for a, b, depth in self._depths(0, self.last) for _ in range(depth - 1)]

    def _depths(self, first: int, last: int) -> Iterator[tuple[int, int, int]]:
        """Sweep over the ends of all intervals and yield (first, last, how many cover it) without gaps."""
        steps: dict[int, int] = {first: 0, last + 1: 0}
        for a, b in self._intervals:
            steps[a] = steps.get(a, 0) + 1
            steps[b + 1] = steps.get(b + 1, 0) - 1
        depth, points = 0, sorted(steps)
        for point, following in zip(points, [*points[1:], None], strict=True):
            depth += steps[point]
            if following is not None and first <= point <= last:
                yield point, min(following - 1, last), depth


def length(intervals: Iterable[Interval]) -> int:
    """Return how many numbers the intervals hold, counting each interval in full."""
    return sum(last - first + 1 for first, last in intervals)
