"""Rule ``line``: an object crosses a line, with direction. Pure.

An object has crossed the line if it passed between the ends of the line, and was then clearly on the other side for
some frames. A track is clearly on one side if it is outside a band around the line. Without the band, a box that
trembles on the line would be counted a hundred times.
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
"""Half the band's width, as a share of the picture's diagonal. At 640×360 half the band is 4 px wide: the boxes of a
stationary object vary by as much."""
SETTLE_FRAMES = 2
"""Number of consecutive frames on the other side that complete a crossing. A single false box does not make a
crossing."""
WAIT_S = 3.0
"""Time after a crossing in which the object may still get a label of the rule, in seconds: fifteen frames at 5 frames
per second."""


class LineRule(CameraRule):
    """Report each crossing of the line from ``start`` to ``end``.

    ``forward`` is the direction from the left of the line to its right, seen by an observer who looks from ``start``
    to ``end`` in the picture.
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
        """Return a new state of the rule for pictures of this size."""
        return LineWatch(self, width, height)


class LineWatch(RuleWatch[LineRule]):
    """Crossings of one line, including crossings of tracks that the rule does not apply to yet.

    If the rule does not apply to a track, its crossing waits for ``WAIT_S``, because the track may get another label
    or a higher score. A crossing during the cooldown does not count. An object at rest crosses no line, even if a
    part of the object is detected on the other side.
    """

    def __init__(self, rule: LineRule, width: int, height: int) -> None:
        super().__init__(rule, width, height)
        start, end = self.shape
        self._counter = LineCounter(start, end, math.hypot(width, height))
        self._waiting: dict[str, tuple[str, int]] = {}

    def step(self, scene: Scene) -> Iterator[SceneHappening]:
        """Process the next scene and return the crossings to report now."""
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
    """Point at which the track was seen last."""
    sign: int
    """Side of the track's last point that was not exactly on the line: 1 is right, -1 is left. 0 if every point was
    on the line."""
    settled: int = 0
    """Side on which the track was clearly seen last; 0 if the track was not clearly on a side yet."""
    beyond: int = 0
    """Number of consecutive frames in which the track was clearly on the other side."""
    net: int = 0
    """Number of passes through the line to the right minus the number of passes to the left, since ``settled`` was
    set."""


class LineCounter:
    """Counts the crossings of one line from the positions of tracks."""

    def __init__(self, start: Point, end: Point, diagonal_px: float) -> None:
        self._start, self._end = start, end
        self._band_px = BAND_SHARE * diagonal_px
        self._paths: dict[str, _Path] = {}

    def step(self, track: str, anchor: Point) -> str | None:
        """Enter a track's point in the next frame.

        Return ``forward`` or ``backward`` if this frame completes a crossing, else None.
        """
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
    """Note that a track is clearly on a side.

    Return the direction if the track has now completed a crossing, else None.
    """
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
