"""Crossings of lines by tracks: the counter of one line, and the base class of rules for line crossings. Pure.

An object has crossed a line if it passed between the ends of the line and then stayed clearly on the far side for
several frames. A track is clearly on one side if its anchor, by default the centre of its box, is outside of a band
around the line. Without a band around the line, a stationary object on the line would be counted again and again,
because the position of its box varies slightly.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, Literal, NamedTuple, Self, TypeVar

from pydantic import model_validator

from ingest.contract.records import Point
from ingest.site import to_pixels
from ingest.site.entry import Anchor, RelativeLine, RelativePoint
from stream.analyse.geometry import crosses, distance_px
from stream.analyse.rule import CameraRule, RuleWatch, Scene, SceneHappening, SceneTrack

FORWARD, BACKWARD = "forward", "backward"
BAND_SHARE = 0.006
"""Half the width of the band around the line, as a share of the picture's diagonal. In a picture of 640×360 pixels,
half the band is 4 px wide, because the position of a stationary object's box varies by up to 4 px."""
SETTLE_FRAMES = 2
"""Number of consecutive frames on the far side of the line that complete a crossing. With two frames, a single false
detection does not complete a crossing."""
WAIT_S = 3.0
"""Maximum time in seconds that a crossing waits until the rule applies to its object, for example because the object
gets another label. 3 s are fifteen frames at 5 frames per second."""


class CrossingRule(CameraRule):
    """Base class of rules for crossings of the line from ``start`` to ``end``.

    ``forward`` is the direction from the left of the line to its right, seen by an observer who looks from ``start``
    to ``end`` in the picture.
    """

    start: RelativePoint
    end: RelativePoint
    direction: Literal["forward", "backward", "both"] = "both"
    anchor: Anchor = "centre"
    """Point of an object that has to cross the line: the centre of its box, or with ``foot`` the middle of the box's
    lower edge, where the object touches the ground. If a truck fills half of the picture, its centre may never be on
    the near side of the line, but its foot is."""

    @model_validator(mode="after")
    def _has_length(self) -> Self:
        if self.start == self.end:
            raise ValueError("expected two different points as start and end")
        return self

    @property
    def shape(self) -> tuple[RelativePoint, ...]:
        """The ends of the line."""
        return self.start, self.end

    def place(self, track: SceneTrack) -> Point:
        """Return the point of a track that has to cross the line."""
        return track.foot if self.anchor == "foot" else track.box.centre


class TrackCrossing(NamedTuple):
    """A crossing of a line by a track to which the rule applies."""

    track: SceneTrack
    direction: str
    at_ns: int
    """Time of the pass through the line, interpolated between two frames, on the clock of ``Scene.at_ns``."""
    quiet: bool
    """Whether the crossing was outside the rule's hours, or within the cooldown after the track's last event."""


C_co = TypeVar("C_co", bound=CrossingRule, covariant=True)


class CrossingWatch(RuleWatch[C_co], Generic[C_co]):
    """State of a rule for line crossings: the crossings of the line, including crossings of tracks to which the rule
    does not apply yet.

    If the rule does not apply to a track, the track's crossing waits for ``WAIT_S``, because the track may get
    another label or a higher score. A stationary object crosses no line, even if a part of the object is detected
    beyond the line. A track that returns on the other side of the line has crossed the line out of sight.
    """

    PER_TRACK = True

    def __init__(self, rule: C_co, width: int, height: int) -> None:
        super().__init__(rule, width, height)
        self._counter = line_counter((rule.start, rule.end), width, height)
        self._waiting: dict[str, tuple[str, int, bool, int]] = {}
        self._crossed: dict[str, tuple[str, str]] = {}
        """Direction and frame of the last crossing of each track, in any direction."""

    @abc.abstractmethod
    def crossed(self, crossing: TrackCrossing, scene: Scene) -> Iterable[SceneHappening]:
        """Process a crossing and return the situation to report now, if any.

        The crossings of one frame come in the order in which they happened. A crossing is reported late if the label
        or score of its track was unknown, so it may be older than crossings of earlier frames.
        """

    def step(self, scene: Scene) -> Iterator[SceneHappening]:
        """Process the tracks of the next frame and return the situations to report for its line crossings."""
        found = (self._crossing(track, scene) for track in scene.tracks if not track.at_rest)
        for crossing in sorted((one for one in found if one), key=lambda one: one.at_ns):
            yield from self.crossed(crossing, scene)

    def place(self, track: SceneTrack) -> Point:
        """Return the point of a track that has to cross the line."""
        return self.rule.place(track)

    def unmet(self, scene: Scene, track: SceneTrack) -> str:
        """Return in words how far a track is from the line, and in which frame it last crossed the line."""
        if track.at_rest:
            return "stands still: a stationary object crosses no line"
        if track.name in self._waiting:
            return f"crossed {self._waiting[track.name][0]}, and waits until the rule applies"
        direction, frame = self._crossed.get(track.name, ("", ""))
        if frame == scene.frame and self.rule.direction not in ("both", direction):
            return f"crossed {direction}, but the rule reports only {self.rule.direction}"
        if frame == scene.frame:
            return ""
        before = f"; it crossed {direction} in frame {frame}" if frame else ""
        return f"did not cross in this frame: {self._counter.whereabouts(track.name)}{before}"

    def settle(self, subject: str) -> None:
        """Note that the crossing of a track has been reported."""
        self._waiting.pop(subject, None)

    def forget(self, track: str) -> None:
        """Drop the state of a track that has ended."""
        super().forget(track)
        self._counter.forget(track)
        self._waiting.pop(track, None)
        self._crossed.pop(track, None)

    def _crossing(self, track: SceneTrack, scene: Scene) -> TrackCrossing | None:
        direction = self._counter.step(track.name, self.place(track), scene.at_ns)
        if direction:
            self._crossed[track.name] = direction, scene.frame
        if direction and self.rule.direction in ("both", direction):
            passed_ns, quiet = self._counter.passed_ns(track.name), self.is_quiet(scene, track.name)
            self._waiting[track.name] = direction, passed_ns, quiet, scene.at_ns + round(WAIT_S * 1e9)
        if track.name not in self._waiting or not self.rule.applies_to(track):
            return None
        direction, passed_ns, quiet, until_ns = self._waiting.pop(track.name)
        return TrackCrossing(track, direction, passed_ns, quiet) if scene.at_ns <= until_ns else None


@dataclass
class _Path:
    anchor: Point
    """Position of the track in the latest frame with a detection, in pixels."""
    sign: int
    """Side of the line on which the track was last: 1 is right, -1 is left. Points exactly on the line do not count;
    0 means that every point of the track was on the line."""
    settled: int = 0
    """Side of the line on which the track was last outside of the band: 1 is right, -1 is left. 0 means that the
    track was never outside of the band."""
    beyond: int = 0
    """Number of consecutive frames in which the track was outside of the band on the side opposite to ``settled``."""
    net: int = 0
    """Number of passes through the line to the right minus the number of passes to the left, since ``settled`` was
    set."""
    at_ns: int = 0
    """Capture time of the frame in which the track was at ``anchor``, in ns since the epoch's first frame."""
    passed_ns: int = 0
    """Time of the last pass through the line, interpolated between two frames."""


def line_counter(line: RelativeLine, width: int, height: int) -> LineCounter:
    """Return a counter of a line in pictures of ``width`` × ``height`` pixels."""
    start, end = to_pixels(line, width, height)
    return LineCounter(start, end, math.hypot(width, height))


class LineCounter:
    """Counts the crossings of one line from the positions of tracks."""

    def __init__(self, start: Point, end: Point, diagonal_px: float) -> None:
        self._start, self._end = start, end
        self._band_px = BAND_SHARE * diagonal_px
        self._paths: dict[str, _Path] = {}

    def step(self, track: str, anchor: Point, at_ns: int = 0) -> str | None:
        """Process the position of a track at the time ``at_ns``, in the next frame.

        Return ``forward`` or ``backward`` if this frame completes a crossing, else None.
        """
        distance = distance_px(self._start, self._end, anchor)
        side = (distance > 0) - (distance < 0)
        path = self._paths.get(track)
        if path is None:
            path = self._paths[track] = _Path(anchor, side)
        if side * path.sign < 0 and crosses(self._start, self._end, path.anchor, anchor):
            before = abs(distance_px(self._start, self._end, path.anchor))
            path.passed_ns = path.at_ns + round((at_ns - path.at_ns) * before / (before + abs(distance)))
            path.net += side
        path.anchor, path.at_ns, path.sign = anchor, at_ns, side or path.sign
        return _settle(path, side) if abs(distance) > self._band_px else None

    def passed_ns(self, track: str) -> int:
        """Return the time at which a track last passed the line, interpolated between two frames."""
        return self._paths[track].passed_ns

    def whereabouts(self, track: str) -> str:
        """Return in words how far a track is from the line, and on which side seen from the line's start."""
        path = self._paths.get(track)
        if path is None:
            return "its position is unknown"
        distance = distance_px(self._start, self._end, path.anchor)
        return f"{abs(distance):.0f} px to the {'right' if distance > 0 else 'left'} of the line"

    def forget(self, track: str) -> None:
        """Drop the state of a track that has ended."""
        self._paths.pop(track, None)


def _settle(path: _Path, side: int) -> str | None:
    """Note that a track is outside of the band, on the given side of the line.

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
