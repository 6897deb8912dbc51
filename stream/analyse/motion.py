"""Recent positions of tracks, and the speeds that follow from them. Pure."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

from stream.analyse.ground import GroundPoint, Speed, speed
from stream.analyse.rule import Scene, SceneTrack

LEAST_SPAN = 0.6
"""Minimum time between the first and the last position from which a speed is computed, as a share of the window."""
HEIGHT_ERROR = 0.02
"""Standard deviation of the position of a box, as a share of the box's height."""

Position = Callable[[SceneTrack, Scene], GroundPoint | None]
"""Returns the position of a track in a frame, on the ground in metres; None if the position is unknown."""


def on_ground(track: SceneTrack, scene: Scene) -> GroundPoint | None:
    """Return the position of a track on the ground, in metres. Return None without a ground plane."""
    return scene.ground.at(track.foot, scene.at_ns) if scene.ground else None


def in_picture(track: SceneTrack, scene: Scene) -> GroundPoint:
    """Return the centre of a track's box, in pixels instead of metres."""
    return GroundPoint(scene.at_ns, *track.box.centre, HEIGHT_ERROR * max(track.box.height, 1.0))


class SpeedMeter:
    """Speeds of tracks, over the positions of the last ``window_s`` seconds."""

    def __init__(self, window_s: float, position: Position) -> None:
        self._window_ns = round(window_s * 1e9)
        self._position = position
        self._points: dict[str, deque[GroundPoint]] = {}

    def note(self, track: SceneTrack, scene: Scene) -> None:
        """Note a track's position in the next frame.

        The positions before a gap that is longer than the window are dropped.
        """
        points = self._points.setdefault(track.name, deque())
        point = self._position(track, scene)
        if point is None:
            points.clear()
            return
        points.append(point)
        while point.at_ns - points[0].at_ns > self._window_ns:
            points.popleft()

    def speed(self, track: str) -> Speed | None:
        """Return the speed of a track; None if the speed is not known yet."""
        points = self._points.get(track)
        if not points or points[-1].at_ns - points[0].at_ns < LEAST_SPAN * self._window_ns:
            return None
        return speed(points)

    def forget(self, track: str) -> None:
        """Drop the positions of a track that has ended."""
        self._points.pop(track, None)


def angle_between(one: tuple[float, float], other: tuple[float, float]) -> float:
    """Return the angle between two directions in degrees, 0 to 180; 0 if one direction is a vector of length 0."""
    lengths = math.hypot(*one) * math.hypot(*other)
    if lengths <= 0.0:
        return 0.0
    return math.degrees(math.acos(max(-1.0, min(1.0, (one[0] * other[0] + one[1] * other[1]) / lengths))))
