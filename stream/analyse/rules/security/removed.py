"""Rule ``removed``, which reports that a stationary object, such as an exhibit, has disappeared. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from ingest.site.entry import Seconds
from stream.analyse.rule import AreaRule, RuleWatch, Scene, SceneHappening, SceneTrack
from stream.analyse.tracking.tracker import LOST_S

SAME_PLACE = 0.3
"""Minimum intersection over union of two boxes that are in the same place."""
HIDDEN = 0.3
"""An object may be hidden if the box of another object covers at least this share of the object's place. The box of a
neighbouring object covers a smaller share."""
MAX_PLACES = 200
"""Maximum number of stationary objects that one rule remembers. Above this number, the object that has been unseen
for the longest time is dropped."""


class RemovedRule(AreaRule):
    """Report once that an object that had stood still for ``rested_s`` has not been seen in its place for ``for_s``.

    While the box of another object covers the object's place, the object may be hidden, and the time ``for_s`` does
    not run. The time ``for_s`` of a removed object does not run in a gap without frames either. An object that
    disappears outside of the rule's hours is not reported.
    """

    EVENT_TYPE: ClassVar[str] = "sightline.object.removed"

    type: Literal["removed"] = "removed"
    rested_s: Seconds = 30.0
    for_s: Seconds = 5.0

    def watch(self, width: int, height: int) -> RemovedWatch:
        """Return the initial state of the rule for pictures of ``width`` × ``height`` pixels."""
        return RemovedWatch(self, width, height)


@dataclass
class _Place:
    """An object that stands still, or stood still until it was last seen."""

    track: SceneTrack
    occurrence: str
    """Name of the frame in which the object began to stand still, and name of its track then."""
    since_ns: int
    seen_ns: int
    settled: bool = False
    """Whether the object has stood still for ``rested_s``."""

    def has(self, track: SceneTrack) -> bool:
        """Return whether a track is in the place of the remembered object."""
        return track.box.iou(self.track.box) >= SAME_PLACE


class RemovedWatch(RuleWatch[RemovedRule]):
    """State of the rule: the places where objects stand still, or stood still before they were no longer seen.

    A place outlives its track, so ``forget`` drops no place: see ``_is_gone`` and ``MAX_PLACES``.
    """

    def __init__(self, rule: RemovedRule, width: int, height: int) -> None:
        super().__init__(rule, width, height)
        self._places: dict[str, _Place] = {}

    def step(self, scene: Scene) -> Iterator[SceneHappening]:
        """Process the tracks of the next frame and return the object that counts as removed now, if any."""
        present = {track.name: track for track in scene.tracks}
        unseen = []
        for name, place in list(self._places.items()):
            track = present.get(name)
            if not (track and (track.at_rest or place.has(track))) and not self._renamed(name, place, scene):
                unseen.append(name)
        for track in scene.tracks:
            if track.at_rest and self.rule.applies_to(track) and self.covers(track.box.centre):
                occurrence = f"{scene.frame}-{track.name}"
                place = self._places.setdefault(track.name, _Place(track, occurrence, scene.at_ns, scene.at_ns))
                place.track = track
        for place in [place for name, place in self._places.items() if name not in unseen]:
            place.seen_ns = scene.at_ns
            place.settled |= scene.at_ns - place.since_ns >= self.rule.rested_s * 1e9
        while len(self._places) > MAX_PLACES:
            del self._places[min(self._places, key=lambda name: self._places[name].seen_ns)]
        gone = [name for name in unseen if name in self._places and self._is_gone(self._places[name], scene)]
        for name in gone:
            if not self._places[name].settled or not self.rule.in_force(scene.captured_ns):
                del self._places[name]
            elif not self.is_quiet(scene):
                yield self._happening(self._places.pop(name), scene)
                return

    def _renamed(self, name: str, place: _Place, scene: Scene) -> bool:
        """Return whether the object of a place stands there under another track name, and note the new name.

        The track with the new name has no place yet, has the same label, and stands still in the object's place.
        """
        for other in scene.tracks:
            same = other.name not in self._places and other.label == place.track.label
            if same and other.at_rest and place.has(other):
                place.track = other
                self._places[other.name] = self._places.pop(name)
                return True
        return False

    def _is_gone(self, place: _Place, scene: Scene) -> bool:
        """Return whether the object of a place has not been seen for ``for_s``, although it was not hidden."""
        area = place.track.box.area
        if place.settled and any(one.box.shared(place.track.box) >= HIDDEN * area for one in scene.visible):
            place.seen_ns = scene.at_ns
        elif scene.gap_s > LOST_S:
            place.seen_ns = min(place.seen_ns + round(scene.gap_s * 1e9), scene.at_ns)
        return scene.at_ns - place.seen_ns >= self.rule.for_s * 1e9

    def _happening(self, place: _Place, scene: Scene) -> SceneHappening:
        gone_s = (scene.at_ns - place.seen_ns) / 1e9
        return SceneHappening(
            occurrence=place.occurrence,
            label=place.track.label,
            summary=f"{place.track.label} removed from {self.rule.name} {gone_s:.0f} s ago",
            details={"gone_s": round(gone_s, 3), "rested_s": round((place.seen_ns - place.since_ns) / 1e9, 3)},
        )
