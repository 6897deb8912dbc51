"""Rule ``left``, which reports that an object, such as a suitcase, has been left behind. Pure."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

from pydantic import Field

from ingest.contract.records import Point
from ingest.site.entry import Seconds
from stream.analyse.lasting import LastingWatch
from stream.analyse.rule import AreaRule, Scene, SceneHappening, SceneTrack


class LeftRule(AreaRule):
    """Report once that an object has stood still for ``for_s`` without an owner nearby. The object is reported again
    only after it has moved.

    An owner is an object with one of the labels ``owners``. An owner is nearby while the distance between the foot
    points of owner and object is at most ``near`` times the owner's height.
    """

    EVENT_TYPE: ClassVar[str] = "sightline.object.left"

    type: Literal["left"] = "left"
    labels: tuple[str, ...] = ("backpack", "handbag", "suitcase")
    owners: tuple[str, ...] = ("person",)
    near: float = Field(default=1.0, gt=0.0)
    for_s: Seconds = 30.0

    def watch(self, width: int, height: int) -> LeftWatch:
        """Return the initial state of the rule for pictures of ``width`` × ``height`` pixels."""
        return LeftWatch(self, width, height, self.for_s)


class LeftWatch(LastingWatch[LeftRule]):
    """State of the rule: the time since which each stationary object has been alone."""

    PER_TRACK = False

    def place(self, track: SceneTrack) -> Point:
        """Return the point at which a track stands on the ground."""
        return track.foot

    def holds(self, track: SceneTrack, scene: Scene) -> bool:
        """Return whether a track stands still inside the polygon, and no owner is nearby.

        For a reported object, owners do not count, because each passer-by would otherwise cause another report.
        """
        if not track.at_rest or track.label in self.rule.owners or not self.covers(self.place(track)):
            return False
        if self.is_reported(track.name):
            return True
        owners = (other for other in scene.visible if other.label in self.rule.owners)
        return not any(math.dist(other.foot, track.foot) <= self.rule.near * other.box.height for other in owners)

    def happening(self, track: SceneTrack, lasted_s: float) -> SceneHappening:
        """Return the event's summary and details for an object that has been alone for ``lasted_s`` seconds."""
        summary = f"{track.label} left behind in {self.rule.name} for {lasted_s:.0f} s"
        return SceneHappening(track=track, summary=summary, details={"alone_s": round(lasted_s, 3)})
