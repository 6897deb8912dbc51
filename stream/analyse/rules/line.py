"""Rule ``line``: an object crosses a line, with direction. Pure.

An object has crossed when it was clearly on one side, is then clearly on the other for some frames, and went through
the line between its ends. Clearly means outside a band around the line. Without that band, a box that trembles on the
line would be counted a hundred times.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

from pydantic import model_validator

from ingest.contract.records import Point
from ingest.site.entry import RelativePoint
from stream.analyse.geometry import crosses, distance_px
from stream.analyse.rule import CameraRule, RuleWatch, Scene, SceneHappening, SceneTrack

FORWARD, BACKWARD = "forward", "backward"
BAND_SHARE = 0.006
"""Half the band's width, as a share of the picture's diagonal. It is 4 px at 640×360: boxes tremble by that much."""
SETTLE_FRAMES = 2
"""Frames in a row on the other side that make a crossing: one false box does not."""
WAIT_S = 3.0
"""Time after a crossing in which the object's label may settle: fifteen frames at five a second."""


class LineRule(CameraRule):
    """Report each crossing of the line from ``start`` to ``end``.

    ``forward`` is from the left of the line to its right, looking from start to end, y downwards.
    """

    EVENT_TYPE: ClassVar[str] = "sightline.line.crossed"

    type: Literal["line"] = "line"
    start: RelativePoint
    end: RelativePoint
    direction: Literal["forward", "backward", "both"] = "both"

    @model_validator(mode="after")
    def _has_length(self) -> Self:
        if self.start == self.end:
            raise ValueError("start and end are the same point: expected a line with a length")
        return self

    @property
    def shape(self) -> tuple[RelativePoint, ...]:
        """The ends of the line."""
        return self.start, self.end

    def watch(self, width: int, height: int) -> LineWatch:
        """Return a new state for pictures of this size."""
        return LineWatch(self, width, height)


class LineWatch(RuleWatch[LineRule]):
    """Crossings of one line, and those of tracks that the rule does not apply to yet.

    Such a crossing waits for ``WAIT_S``, in case the track gets another label or a higher score by then. A crossing
    during the cooldown does not count. An object at rest crosses no line, even if a part of it is found on the other
    side.
    """

    def __init__(self, rule: LineRule, width: int, height: int) -> None:
        super().__init__(rule, width, height)
        start, end = self.shape
        self._counter = LineCounter(start, end, math.hypot(width, height))
        self._waiting: dict[str, tuple[str, int]] = {}

    def step(self, scene: Scene) -> Iterator[SceneHappening]:
        """Take the next scene and return the crossings that are to be reported."""
        for track in scene.tracks:
            direction = None if track.at_rest else self._crossed(track, scene)
            if direction:
                summary = f"{track.label} crossed {self.rule.name} going {direction}"
                yield SceneHappening(track=track, summary=summary, details={"direction": direction})

    def settle(self, subject: str) -> None:
        """Note that the crossing of a track has been reported."""
        self._waiting.pop(subject, None)

    def forget(self, track: str) -> None:
        """Drop the state of a track that has ended."""
        super().forget(track)
        self._counter.forget(track)
        self._waiting.pop(track, None)

    def _crossed(self, track: SceneTrack, scene: Scene) -> str | None:
        direction = self._counter.step(track.name, track.box.centre)
        if direction and self.rule.direction in ("both", direction) and not self.is_quiet(scene, track.name):
            self._waiting[track.name] = direction, scene.at_ns + round(WAIT_S * 1e9)
        if track.name not in self._waiting or not self.rule.applies_to(track):
            return None
        crossed, until_ns = self._waiting.pop(track.name)
        return crossed if scene.at_ns <= until_ns else None


@dataclass
class _Path:
    anchor: Point
    """Place where the track was seen last."""
    sign: int
    """1 on the right of the line, -1 on its left, 0 on the line since it was first seen."""
    settled: int = 0
    """Side on which it was clearly seen last; 0 before that."""
    beyond: int = 0
    """Frames in a row in which it was clearly on the other side."""
    net: int = 0
    """Passes through the line itself to the right, less those to the left, since it settled."""


class LineCounter:
    """One line, and the side of it on which each track is."""

    def __init__(self, start: Point, end: Point, diagonal_px: float) -> None:
        self._start, self._end = start, end
        self._band_px = BAND_SHARE * diagonal_px
        self._paths: dict[str, _Path] = {}

    def step(self, track: str, anchor: Point) -> str | None:
        """Take a track's place in the next frame. Return ``forward`` or ``backward`` when it has now crossed."""
        distance = distance_px(self._start, self._end, anchor)
        side = (distance > 0) - (distance < 0)
        path = self._paths.setdefault(track, _Path(anchor, side))
        if side * path.sign < 0:
            path.net += side * crosses(self._start, self._end, path.anchor, anchor)
        path.anchor, path.sign = anchor, side or path.sign
        return _settle(path, side) if abs(distance) > self._band_px else None

    def forget(self, track: str) -> None:
        """Drop the state of a track that has ended."""
        self._paths.pop(track, None)


def _settle(path: _Path, side: int) -> str | None:
    """Note that a track is clearly on a side. Return the direction if it has thereby crossed."""
    if path.settled in (0, side):
        path.settled, path.beyond, path.net = side, 0, 0
        return None
    path.beyond += 1
    if path.beyond < SETTLE_FRAMES:
        return None
    went_through = path.net * side > 0
    path.settled, path.beyond, path.net = side, 0, 0
    if not went_through:
        return None
    return FORWARD if side > 0 else BACKWARD
