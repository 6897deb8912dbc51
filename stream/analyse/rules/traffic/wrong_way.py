"""Rule ``wrong_way``, which reports that an object moves against the allowed direction. Pure."""

from __future__ import annotations

import math
from collections import deque
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from ingest.contract.records import Point
from ingest.site import to_pixels
from ingest.site.entry import RelativePoint, Seconds, Share
from stream.analyse.lasting import LastingWatch
from stream.analyse.motion import angle_between
from stream.analyse.rule import AreaRule, Scene, SceneHappening, SceneTrack

OPPOSITE_DEG = 120.0
"""Minimum angle between the allowed direction and the direction of an object that moves the wrong way. An object that
crosses the road, at about 90°, does not move the wrong way."""


class WrongWayRule(AreaRule):
    """Report each object once if it moves against the direction from ``start`` to ``end`` for ``for_s``.

    The direction of an object is the direction of its path during the last ``window_s``. A path that is shorter than
    ``min_way``, as a share of the picture's diagonal, has no direction.
    """

    EVENT_TYPE: ClassVar[str] = "sightline.direction.wrong"

    type: Literal["wrong_way"] = "wrong_way"
    start: RelativePoint
    end: RelativePoint
    window_s: float = Field(default=1.0, ge=0.2, le=10.0)
    for_s: Seconds = 0.5
    min_way: Share = 0.02

    @model_validator(mode="after")
    def _has_direction(self) -> Self:
        if self.start == self.end:
            raise ValueError("expected two different points as start and end, which show the allowed direction")
        return self

    def watch(self, width: int, height: int) -> WrongWayWatch:
        """Return the initial state of the rule for pictures of ``width`` × ``height`` pixels."""
        return WrongWayWatch(self, width, height, self.for_s)


class WrongWayWatch(LastingWatch[WrongWayRule]):
    """State of the rule: the latest positions of each track, and the present movements the wrong way."""

    def __init__(self, rule: WrongWayRule, width: int, height: int, for_s: float) -> None:
        super().__init__(rule, width, height, for_s)
        (start_x, start_y), (end_x, end_y) = to_pixels((rule.start, rule.end), width, height)
        self._allowed = end_x - start_x, end_y - start_y
        self._least_px = rule.min_way * math.hypot(width, height)
        self._window_ns = round(rule.window_s * 1e9)
        self._paths: dict[str, deque[tuple[int, Point]]] = {}

    def holds(self, track: SceneTrack, scene: Scene) -> bool:
        """Return whether a track inside the polygon moves the wrong way, or has been reported.

        The period of a reported track never ends, so an object that stops and goes on is not reported again.
        """
        path = self._paths.setdefault(track.name, deque())
        path.append((scene.at_ns, track.box.centre))
        while scene.at_ns - path[0][0] > self._window_ns:
            path.popleft()
        if self.is_reported(track.name):
            return True
        (from_x, from_y), (x, y) = path[0][1], track.box.centre
        way = x - from_x, y - from_y
        if track.at_rest or math.hypot(*way) < self._least_px or not self.covers(track.box.centre):
            return False
        return angle_between(way, self._allowed) >= OPPOSITE_DEG

    def happening(self, track: SceneTrack, lasted_s: float) -> SceneHappening:
        """Return the event's summary and details for a track that has moved the wrong way for ``lasted_s``
        seconds."""
        summary = f"{track.label} moves the wrong way in {self.rule.name}"
        return SceneHappening(track=track, summary=summary, details={"lasted_s": round(lasted_s, 3)})

    def resume(self, track: str) -> None:
        """Determine the direction of a returning track anew."""
        self._paths.pop(track, None)
        self.interrupt(track)

    def forget(self, track: str) -> None:
        """Drop the state of a track that has ended."""
        super().forget(track)
        self._paths.pop(track, None)
