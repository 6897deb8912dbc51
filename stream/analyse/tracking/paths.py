"""The path of each track: its latest places, how far it has moved, when it was last seen, and why it ended. Pure."""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ingest.contract.records import Box, Point
from stream.analyse.rule import SceneTrack
from stream.analyse.tracking.ends import TrackEnd, TrackEnds, reaches_edge
from stream.analyse.tracking.tracker import Track

TRAIL_POINTS = 20
TRACK_IDLE_S = 10.0
"""Time in seconds after which rules forget a track that is no longer seen."""


@dataclass(slots=True)
class TrackPath:
    """The path of one track so far."""

    trail: deque[Point] = field(default_factory=lambda: deque(maxlen=TRAIL_POINTS))
    """The latest centres of the track's box in px, oldest first."""
    origin: Point | None = None
    """The first centre in px."""
    moved: float = 0.0
    """Largest distance from the first centre, as a share of the picture's diagonal."""
    seen_s: float = 0.0
    """Track time of the last frame with the track, in seconds since the epoch's first result."""

    def add(self, centre: Point, diagonal_px: float) -> None:
        """Add the next centre. ``diagonal_px`` is the picture's diagonal."""
        self.trail.append(centre)
        if self.origin is None:
            self.origin = centre
        self.moved = max(self.moved, math.dist(self.origin, centre) / diagonal_px)

    def shown(self, track: Track, at_rest: bool) -> SceneTrack:
        """Return the track as rules see it."""
        attributes, best = track.votes.results, track.best_score
        return SceneTrack(
            track.name, track.label, track.score, track.box, at_rest, self.trail, attributes, self.moved, best
        )


class TrackPaths:
    """The paths of the tracks of one epoch, whose first picture has the given size in px."""

    def __init__(self, width: int, height: int) -> None:
        self._size = width, height
        self._diagonal_px = math.hypot(width, height)
        self._paths: defaultdict[str, TrackPath] = defaultdict(TrackPath)
        self._ends = TrackEnds()

    def note(self, track: str, box: Box, at_s: float) -> None:
        """Note the box of a track in the frame with the track time ``at_s``."""
        path = self._paths[track]
        path.add(box.centre, self._diagonal_px)
        path.seen_s = at_s

    def note_earlier(self, track: str, box: Box, at_s: float) -> None:
        """Note the box of a track that waited in a frame before the present one."""
        self.note(track, box, at_s)
        self._ends.note(track, box)

    def drop(self, track: str) -> None:
        """Drop the path of a track whose wait has ended. ``note_earlier`` gets its boxes, under its final name."""
        self._paths.pop(track, None)

    def keep(self, tracks: Iterable[str], at_s: float) -> None:
        """Note that tracks continue without a detection."""
        for track in tracks:
            self._paths[track].seen_s = at_s

    def scene(self, tracks: Sequence[SceneTrack], gap_s: float) -> None:
        """Note the last places of the tracks of the next frame, which was captured ``gap_s`` after the previous one,
        not counting time without motion."""
        self._ends.scene(((track.name, track.box) for track in tracks), gap_s)

    def shown(self, track: Track, at_rest: bool) -> SceneTrack:
        """Return a track as rules see it."""
        return self._paths[track.name].shown(track, at_rest)

    def resume(self, track: str) -> None:
        """Note that a track returns after it was out of sight, so that its trail begins again."""
        self._paths[track].trail.clear()
        self._ends.resume(track)

    def idle(self, now_s: float) -> list[str]:
        """Return the tracks that were not seen for ``TRACK_IDLE_S``, at the track time ``now_s``."""
        return [name for name, path in self._paths.items() if now_s - path.seen_s > TRACK_IDLE_S]

    def forget(self, track: str) -> TrackEnd:
        """Forget a track that has ended, and return why it ended."""
        del self._paths[track]
        return self._ends.end(track, *self._size)

    def has_left(self, track: str) -> bool:
        """Return whether the object of a track that is no longer seen has left the picture."""
        return self._ends.has_left(track, *self._size)

    def is_at_edge(self, box: Box) -> bool:
        """Return whether a box touches the edge of the picture."""
        return reaches_edge(box, (0.0, 0.0), *self._size)
