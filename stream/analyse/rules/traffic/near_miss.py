"""Rule ``near_miss``, which reports that two objects passed the same place shortly after each other on crossing
paths. Pure.

The post-encroachment time begins when the first object leaves the place, and ends when the second object arrives
(Allen, Shin and Cooper, Transportation Research Record 667, 1978). A time below 1.5 s is usually called a serious
conflict.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import ClassVar, Literal, NamedTuple

from pydantic import Field

from ingest.contract.records import Point
from stream.analyse.motion import angle_between
from stream.analyse.rule import AreaRule, RuleWatch, Scene, SceneHappening, SceneTrack

_HEADING_POINTS = 4
"""Number of latest positions from which an object's heading is computed."""


class NearMissRule(AreaRule):
    """Report each pair of objects once if their paths cross with a post-encroachment time below ``below_s``.

    Two paths cross if the angle between the objects' headings is at least ``min_angle`` degrees. With
    ``with_labels``, the first object of a pair must have one of these labels, such as ``person`` in a rule for
    vehicles.
    """

    EVENT_TYPE: ClassVar[str] = "sightline.near_miss"

    type: Literal["near_miss"] = "near_miss"
    below_s: float = Field(default=1.5, gt=0.0, le=10.0)
    min_angle: float = Field(default=30.0, ge=0.0, le=180.0)
    with_labels: tuple[str, ...] = ()

    def watch(self, width: int, height: int) -> NearMissWatch:
        """Return the initial state of the rule for pictures of ``width`` × ``height`` pixels."""
        return NearMissWatch(self, width, height)


class _Print(NamedTuple):
    """The ground that an object covered at one time: the lower quarter of its box."""

    at_ns: int
    left: float
    right: float
    top: float
    bottom: float
    heading: Point

    def meets(self, other: _Print) -> bool:
        """Return whether two objects cover a common place."""
        beside = self.right <= other.left or other.right <= self.left
        apart = self.bottom <= other.top or other.bottom <= self.top
        return not (beside or apart)


def _around(prints: deque[_Print]) -> _Print:
    """Return the smallest rectangle around all places, with the time and heading of the last place."""
    return prints[-1]._replace(
        left=min(one.left for one in prints),
        right=max(one.right for one in prints),
        top=min(one.top for one in prints),
        bottom=max(one.bottom for one in prints),
    )


class NearMissWatch(RuleWatch[NearMissRule]):
    """State of the rule: the places that each track covered recently, and the pairs that are reported."""

    def __init__(self, rule: NearMissRule, width: int, height: int) -> None:
        super().__init__(rule, width, height)
        self._window_ns = round(rule.below_s * 1e9)
        self._centres: dict[str, deque[Point]] = {}
        self._prints: dict[str, deque[_Print]] = {}
        self._labels: dict[str, str] = {}
        self._reported: set[frozenset[str]] = set()
        self._areas: dict[str, _Print] = {}
        """The smallest rectangle around the recent places of each track, in the present frame. Most pairs of tracks
        are far apart, so only pairs whose rectangles meet are compared place by place."""
        self._yielded: set[str] = set()
        """Tracks whose near miss was reported in the present frame."""

    def place(self, track: SceneTrack) -> Point:
        """Return the point at which a track stands on the ground."""
        return track.foot

    def step(self, scene: Scene) -> Iterator[SceneHappening]:
        """Process the tracks of the next frame and return the second object of each near miss that happens now."""
        moving = [track for track in scene.tracks if not track.at_rest]
        fresh = {track.name: self._note(track, scene) for track in moving}
        self._areas = {name: _around(prints) for name, prints in self._prints.items()}
        self._yielded.clear()
        for track in moving:
            mark = fresh[track.name]
            if mark is None or not self.rule.applies_to(track) or not self.covers(self.place(track)):
                continue
            encounter = None if self.is_quiet(scene, track.name) else self._encounter(track.name, mark)
            if encounter:
                other, gap_s = encounter
                self._yielded.add(track.name)
                self._reported.add(frozenset((track.name, other)))
                label = self._labels[other]
                yield SceneHappening(
                    track=track,
                    summary=f"{track.label} passed {gap_s:.1f} s after {label} on a crossing way in {self.rule.name}",
                    details={"post_encroachment_s": round(gap_s, 3), "other": label},
                )

    def settle(self, subject: str) -> None:
        """Note that the near miss of a track in the present frame has been reported."""
        prints = self._prints.get(subject)
        if subject not in self._yielded and prints and (encounter := self._encounter(subject, prints[-1])):
            self._reported.add(frozenset((subject, encounter[0])))

    def resume(self, track: str) -> None:
        """Determine the heading of a returning track anew."""
        self._centres.pop(track, None)

    def forget(self, track: str) -> None:
        """Drop the state of a track that has ended."""
        super().forget(track)
        self._centres.pop(track, None)
        self._prints.pop(track, None)
        self._areas.pop(track, None)
        self._labels.pop(track, None)
        self._reported = {pair for pair in self._reported if track not in pair}

    def _note(self, track: SceneTrack, scene: Scene) -> _Print | None:
        """Store and return the place that a track covers. Return None while the heading of the track is unknown."""
        self._labels[track.name] = track.label
        centres = self._centres.setdefault(track.name, deque(maxlen=_HEADING_POINTS))
        centres.append(track.box.centre)
        if len(centres) < _HEADING_POINTS:
            return None
        (from_x, from_y), (x, y) = centres[0], centres[-1]
        box = track.box
        mark = _Print(
            scene.at_ns, box.left, box.right, box.bottom - box.height / 4, box.bottom, (x - from_x, y - from_y)
        )
        prints = self._prints.setdefault(track.name, deque())
        prints.append(mark)
        while scene.at_ns - prints[0].at_ns > self._window_ns:
            prints.popleft()
        return mark

    def _encounter(self, name: str, mark: _Print) -> tuple[str, float] | None:
        """Return the last track that left the ground ``mark``, which the track ``name`` covers now, and the time in
        seconds since it left."""
        found: tuple[str, float] | None = None
        for other, prints in self._prints.items():
            if other == name or frozenset((name, other)) in self._reported or not self._wanted(other):
                continue
            if not self._areas[other].meets(mark):
                continue
            before = next((one for one in reversed(prints) if one.at_ns < mark.at_ns and one.meets(mark)), None)
            if before is None or before is prints[-1]:
                continue  # the other object never was here, or is still here
            if angle_between(before.heading, mark.heading) < self.rule.min_angle:
                continue
            gap_s = (mark.at_ns - before.at_ns) / 1e9
            if gap_s <= self.rule.below_s and (found is None or gap_s < found[1]):
                found = other, gap_s
        return found

    def _wanted(self, other: str) -> bool:
        return not self.rule.with_labels or self._labels.get(other) in self.rule.with_labels
