"""Line crossing with direction. Pure.

An object has crossed when it has been clearly on one side and then, for some frames, clearly on the other, and its
way between met the line. Clearly means outside a band around the line, so that a box that trembles on the line is
not counted a hundred times.
"""

from __future__ import annotations

from dataclasses import dataclass

from ingest.records import Point
from stream.analyse.geometry import crosses, distance_px

__all__ = ["BACKWARD", "FORWARD", "LineCounter"]

FORWARD, BACKWARD = "forward", "backward"
BAND_SHARE = 0.006
"""Half the band's width, as a share of the picture's diagonal: 4 px at 640×360, what boxes tremble by."""
SETTLE_FRAMES = 2
"""So many frames in a row on the other side make a crossing: one false box does not."""


@dataclass
class _Side:
    settled: int
    """1 on the right of the line, -1 on its left."""
    last: Point
    """Where it was last seen on that side."""
    beyond: int = 0


class LineCounter:
    """One line, and where each track is in relation to it."""

    def __init__(self, start: Point, end: Point, diagonal_px: float) -> None:
        self._start, self._end = start, end
        self._band_px = BAND_SHARE * diagonal_px
        self._sides: dict[str, _Side] = {}

    def step(self, track: str, anchor: Point) -> str | None:
        """Take a track's anchor in the next frame. Return ``forward`` or ``backward`` when it has now crossed."""
        distance = distance_px(self._start, self._end, anchor)
        if abs(distance) <= self._band_px:
            return None
        side = 1 if distance > 0 else -1
        state = self._sides.setdefault(track, _Side(side, anchor))
        if side == state.settled:
            state.last, state.beyond = anchor, 0
            return None
        state.beyond += 1
        if state.beyond < SETTLE_FRAMES:
            return None
        met = crosses(self._start, self._end, state.last, anchor)
        self._sides[track] = _Side(side, anchor)
        if not met:
            return None
        return FORWARD if side > 0 else BACKWARD

    def forget(self, track: str) -> None:
        """Forget a track that is over."""
        self._sides.pop(track, None)
