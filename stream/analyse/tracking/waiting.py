"""New tracks that wait until they are compared with lost tracks, and their frames until then. Pure.

Rules do not see a waiting track, because its name may change. When the wait ends, they process its frames.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import NamedTuple

from ingest.contract.records import Result
from stream.analyse.rule import Scene, SceneTrack
from stream.analyse.tracking.tracker import Track


class EarlierFrame(NamedTuple):
    """A frame in which a track waited. ``scene`` has only this track, and ``result`` has no detections."""

    result: Result
    scene: Scene
    at_s: float
    """Track time of the frame, in seconds since the epoch's first result."""


class WaitingTrack(NamedTuple):
    """A track with the frames in which it waited, oldest first: at most about a second of frames."""

    track: Track
    frames: list[EarlierFrame]


class WaitingTracks:
    """The waiting tracks of one camera, lane and pipeline, by the names that they had first."""

    def __init__(self) -> None:
        self._waits: dict[str, WaitingTrack] = {}

    def shown(self, track: Track, at_rest: bool, diagonal_px: float) -> SceneTrack:
        """Return a waiting track as rules about visible objects see it. ``diagonal_px`` is the picture's diagonal."""
        earlier = self._waits[track.name].frames if track.name in self._waits else ()
        trail = [*(frame.scene.tracks[0].box.centre for frame in earlier), track.box.centre]
        moved = max(math.dist(trail[0], point) for point in trail) / diagonal_px
        attributes, best = track.votes.results, track.best_score
        return SceneTrack(track.name, track.label, track.score, track.box, at_rest, trail, attributes, moved, best)

    def note(self, track: Track, frame: EarlierFrame) -> None:
        """Keep a frame in which a track waits."""
        self._waits.setdefault(track.name, WaitingTrack(track, [])).frames.append(frame)

    def end(self, pending: Collection[str]) -> list[WaitingTrack]:
        """Remove and return the tracks that no longer wait, in the order in which they began to wait. ``pending`` has
        the names of the tracks that still wait."""
        return [self._waits.pop(name) for name in list(self._waits) if name not in pending]
