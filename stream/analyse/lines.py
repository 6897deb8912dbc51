"""Line crossing with direction. Pure.

An object has crossed when it has been clearly on one side and then, for some frames, clearly on the other, and has
gone through the line between its ends. Clearly means outside a band around the line, so that a box that trembles on
the line is not counted a hundred times.
"""

from __future__ import annotations

from dataclasses import dataclass

from ingest.contract.records import Point
from stream.analyse.geometry import crosses, distance_px

FORWARD, BACKWARD = "forward", "backward"
BAND_SHARE = 0.006
"""Half the band's width, as a share of the picture's diagonal: 4 px at 640×360, what boxes tremble by."""
SETTLE_FRAMES = 2
"""So many frames in a row on the other side make a crossing: one false box does not."""
WAIT_S = 3.0
"""What an object is taken for is settled within so long of a crossing: fifteen frames at five a second."""


@dataclass
class _Way:
    anchor: Point
    """Where it was seen last."""
    sign: int
    """1 on the right of the line, -1 on its left, 0 on the line since it was first seen."""
    settled: int = 0
    """The side on which it was clearly seen; 0 before that."""
    beyond: int = 0
    net: int = 0
    """How often it has gone through the line itself to the right, less how often to the left, since it settled."""


class LineCounter:
    """One line, and where each track is in relation to it."""

    def __init__(self, start: Point, end: Point, diagonal_px: float) -> None:
        self._start, self._end = start, end
        self._band_px = BAND_SHARE * diagonal_px
        self._ways: dict[str, _Way] = {}

    def step(self, track: str, anchor: Point) -> str | None:
        """Take a track's anchor in the next frame. Return ``forward`` or ``backward`` when it has now crossed."""
        distance = distance_px(self._start, self._end, anchor)
        side = (distance > 0) - (distance < 0)
        way = self._ways.setdefault(track, _Way(anchor, side))
        if side * way.sign < 0:
            way.net += side * crosses(self._start, self._end, way.anchor, anchor)
        way.anchor, way.sign = anchor, side or way.sign
        return _settle(way, side) if abs(distance) > self._band_px else None

    def forget(self, track: str) -> None:
        """Forget a track that is over."""
        self._ways.pop(track, None)


def _settle(way: _Way, side: int) -> str | None:
    """Take note that a track is clearly on a side, and tell whether it has thereby crossed."""
    if way.settled in (0, side):
        way.settled, way.beyond, way.net = side, 0, 0
        return None
    way.beyond += 1
    if way.beyond < SETTLE_FRAMES:
        return None
    went_through = way.net * side > 0
    way.settled, way.beyond, way.net = side, 0, 0
    if not went_through:
        return None
    return FORWARD if side > 0 else BACKWARD


class LineWatch:
    """A line as a rule looks at it: the directions that count, and crossings by what is not known well enough yet."""

    def __init__(self, counter: LineCounter, direction: str) -> None:
        self._counter = counter
        self._direction = direction
        self._waiting: dict[str, tuple[str, int]] = {}

    def step(self, track: str, anchor: Point, at_ns: int, *, watched: bool = True, quiet: bool = False) -> str | None:
        """Take a track's anchor at a time, in Unix ns. Return the direction of a crossing that is to be told.

        A crossing while the rule is ``quiet`` is none. One by a track that is not ``watched`` is kept for ``WAIT_S``,
        in case it is taken for something else by then.
        """
        direction = self._counter.step(track, anchor)
        if direction and not quiet and self._direction in ("both", direction):
            self._waiting[track] = direction, at_ns + round(WAIT_S * 1e9)
        if not watched or track not in self._waiting:
            return None
        crossed, until_ns = self._waiting.pop(track)
        return crossed if at_ns <= until_ns else None

    def settle(self, track: str) -> None:
        """Take it that what the track has done has been told."""
        self._waiting.pop(track, None)

    def forget(self, track: str) -> None:
        """Forget a track that is over."""
        self._counter.forget(track)
        self._waiting.pop(track, None)
