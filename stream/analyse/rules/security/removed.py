"""Rule ``removed``, which reports that an object that stood still has gone, such as an exhibit. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from ingest.site.entry import Seconds
from stream.analyse.rule import AreaRule, RuleWatch, Scene, SceneHappening, SceneTrack

SAME_PLACE = 0.3
"""Minimum intersection over union of two boxes that are in the same place."""


class RemovedRule(AreaRule):
    """Report once that an object that had stood still for ``rested_s`` has not been seen in its place for ``for_s``.

    While the box of another object covers the place, the object may be hidden, and the time does not run.
    """

    EVENT_TYPE: ClassVar[str] = "sightline.object.removed"

    type: Literal["removed"] = "removed"
    rested_s: Seconds = 30.0
    for_s: Seconds = 5.0

    def watch(self, width: int, height: int) -> RemovedWatch:
        """Return a new state of the rule for pictures of ``width`` × ``height`` pixels."""
        return RemovedWatch(self, width, height)


@dataclass
class _Place:
    """An object that stands still, or stood still until it was last seen."""

    track: SceneTrack
    frame: str
    """Name of the frame in which the object began to stand still."""
    since_ns: int
    seen_ns: int
    settled: bool = False
    """Whether the object has stood still for ``rested_s``."""


class RemovedWatch(RuleWatch[RemovedRule]):
    """State of the rule: the places where objects stand still, or stood still before they were no longer seen."""

    def __init__(self, rule: RemovedRule, width: int, height: int) -> None:
        super().__init__(rule, width, height)
        self._places: dict[str, _Place] = {}

    def step(self, scene: Scene) -> Iterator[SceneHappening]:
        """Process the next scene and return the object that counts as removed now, if any."""
        for track in scene.tracks:
            if track.at_rest and self.rule.applies_to(track) and self.covers(track.box.centre):
                place = self._places.setdefault(track.name, _Place(track, scene.frame, scene.at_ns, scene.at_ns))
                place.track = track
        present = {track.name: track for track in scene.tracks}
        for name, place in list(self._places.items()):
            seen = present.get(name)
            if seen and (seen.at_rest or seen.box.iou(place.track.box) >= SAME_PLACE):
                place.seen_ns = scene.at_ns
                place.settled |= scene.at_ns - place.since_ns >= self.rule.rested_s * 1e9
            elif self._taken_over(name, place, scene):
                place.seen_ns = scene.at_ns
            elif not place.settled:
                del self._places[name]
            elif scene.at_ns - place.seen_ns >= self.rule.for_s * 1e9 and not self.is_quiet(scene):
                del self._places[name]
                yield self._happening(place, scene)
                return

    def _taken_over(self, name: str, place: _Place, scene: Scene) -> bool:
        """Return whether another track covers the place of an object that is not seen.

        A track of the same label that stands still in the place is the object itself under a new name.
        """
        covering = [other for other in scene.tracks if other.name != name and other.box.shared(place.track.box) > 0.0]
        for other in covering:
            if other.label == place.track.label and other.at_rest and other.box.iou(place.track.box) >= SAME_PLACE:
                place.track = other
        return bool(covering)

    def _happening(self, place: _Place, scene: Scene) -> SceneHappening:
        gone_s = (scene.at_ns - place.seen_ns) / 1e9
        return SceneHappening(
            occurrence=f"{place.frame}-{place.track.label}",
            label=place.track.label,
            summary=f"{place.track.label} removed from {self.rule.name} {gone_s:.0f} s ago",
            details={"gone_s": round(gone_s, 3), "rested_s": round((place.seen_ns - place.since_ns) / 1e9, 3)},
        )
