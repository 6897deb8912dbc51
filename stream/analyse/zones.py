"""Being inside a zone. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ingest.contract.records import Point
from stream.analyse.geometry import inside

LEAVE_FRAMES = 3
"""So many frames in a row outside make it out: a box that trembles on the edge stays in."""


@dataclass
class _Visit:
    since_ns: int
    outside: int = 0
    told: bool = False


class ZoneWatch:
    """One polygon, and the visits of tracks to it. A visit is told once, when it has lasted ``dwell_s``."""

    def __init__(self, polygon: Sequence[Point], dwell_s: float) -> None:
        self._polygon = tuple(polygon)
        self._dwell_ns = round(dwell_s * 1e9)
        self._visits: dict[str, _Visit] = {}

    def step(
        self, track: str, anchor: Point, at_ns: int, *, watched: bool = True, quiet: bool = False
    ) -> float | None:
        """Take a track's anchor at a time, in ns. Return the seconds of a visit that is now to be told.

        A visit that is long enough while the rule is ``quiet``, or the track not ``watched``, is told afterwards if
        it still lasts.
        """
        visit = self._visits.get(track)
        if not inside(self._polygon, anchor):
            self._outside(track, visit)
            return None
        if visit is None:
            visit = self._visits[track] = _Visit(at_ns)
        visit.outside = 0
        lasted_ns = at_ns - visit.since_ns
        if visit.told or lasted_ns < self._dwell_ns or quiet or not watched:
            return None
        visit.told = True
        return lasted_ns / 1e9

    def settle(self, track: str) -> None:
        """Take it that the track's visit, if there is one, has been told."""
        if track in self._visits:
            self._visits[track].told = True

    def forget(self, track: str) -> None:
        """Forget a track that is over."""
        self._visits.pop(track, None)

    def _outside(self, track: str, visit: _Visit | None) -> None:
        if visit is None:
            return
        visit.outside += 1
        if visit.outside >= LEAVE_FRAMES:
            del self._visits[track]
