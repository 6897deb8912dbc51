"""Reasons why tracks end. Pure.

The object of a track that ends has left the picture, or it was lost. Only an object at the edge of the picture can
leave it, and only while the camera was watched. If frames are missing after the last detection, nobody knows where
the object went.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

from ingest.contract.records import Box, Point
from stream.analyse.tracking.tracker import LOST_S

EndReason = Literal["left", "lost"]
"""``left``: the object went out of the picture. ``lost``: the object disappeared inside the picture, for example
behind another one or because the model missed it, or it was not watched for longer than ``LOST_S``."""
_EDGE_SHARE = 0.02
"""Distance from the edge of the picture at which a box touches the edge, as a share of the picture's width or height.
Detectors often leave some pixels between a box and the edge."""


class TrackEnd(NamedTuple):
    """The end of a track."""

    track: str
    reason: EndReason


class _LastPlace(NamedTuple):
    """The last box of a track, the box before, and the time of the last box in seconds."""

    box: Box
    before: Box
    at_s: float

    @property
    def step(self) -> Point:
        """The step of the centre to the last box, in px."""
        (x, y), (old_x, old_y) = self.box.centre, self.before.centre
        return x - old_x, y - old_y


class TrackEnds:
    """The last place of each track, from which the reason of its end follows."""

    def __init__(self) -> None:
        self._places: dict[str, _LastPlace] = {}
        self._unwatched: set[str] = set()
        self._now_s = 0.0

    def scene(self, tracks: Iterable[tuple[str, Box]], gap_s: float) -> None:
        """Note the boxes of the tracks of the next frame, which was captured ``gap_s`` after the previous one, not
        counting time without motion.

        A gap does not change the reason for a track that was not seen for ``LOST_S`` before the gap.
        """
        if gap_s > LOST_S:
            recent = {name for name, place in self._places.items() if self._now_s - place.at_s <= LOST_S}
            self._unwatched |= recent
        self._now_s += gap_s
        for name, box in tracks:
            self.note(name, box)

    def note(self, track: str, box: Box) -> None:
        """Note the next box of a track, in the latest frame or in an earlier one."""
        last = self._places.get(track)
        self._places[track] = _LastPlace(box, last.box if last else box, self._now_s)
        self._unwatched.discard(track)

    def resume(self, track: str) -> None:
        """Note that a track returns, so that its next box does not follow from its last one by one step."""
        self._places.pop(track, None)

    def end(self, track: str, width: int, height: int) -> TrackEnd:
        """Forget a track that has ended in a picture of ``width`` × ``height`` pixels, and return why it ended."""
        left = self.has_left(track, width, height)
        self._places.pop(track, None)
        self._unwatched.discard(track)
        return TrackEnd(track, "left" if left else "lost")

    def has_left(self, track: str, width: int, height: int) -> bool:
        """Return whether the object of a track that is no longer seen has left a picture of ``width`` × ``height``
        pixels."""
        place = self._places.get(track)
        return (
            place is not None and track not in self._unwatched and reaches_edge(place.box, place.step, width, height)
        )


def reaches_edge(box: Box, step: Point, width: int, height: int) -> bool:
    """Return whether a box touches the edge of the picture, or does so if it moves by its last step again."""
    edge_x, edge_y = _EDGE_SHARE * width, _EDGE_SHARE * height
    return (
        box.left + min(step[0], 0.0) <= edge_x
        or box.top + min(step[1], 0.0) <= edge_y
        or box.right + max(step[0], 0.0) >= width - edge_x
        or box.bottom + max(step[1], 0.0) >= height - edge_y
    )
