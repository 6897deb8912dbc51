"""Rule ``stopped``, which reports that an object has stood still inside a polygon for a given time. Pure."""

from __future__ import annotations

from typing import ClassVar, Literal

from ingest.site.entry import Seconds
from stream.analyse.lasting import LastingWatch
from stream.analyse.rule import AreaRule, Scene, SceneHappening, SceneTrack


class StoppedRule(AreaRule):
    """Report each stop of an object once, when the object has stood still for ``for_s``."""

    EVENT_TYPE: ClassVar[str] = "sightline.object.stopped"

    type: Literal["stopped"] = "stopped"
    for_s: Seconds = 10.0

    def watch(self, width: int, height: int) -> StoppedWatch:
        """Return the initial state of the rule for pictures of ``width`` × ``height`` pixels."""
        return StoppedWatch(self, width, height, self.for_s)


class StoppedWatch(LastingWatch[StoppedRule]):
    """State of the rule: the present stops of tracks inside the polygon."""

    def holds(self, track: SceneTrack, scene: Scene) -> bool:
        """Return whether a track stands still inside the polygon."""
        return track.at_rest and self.covers(track.box.centre)

    def happening(self, track: SceneTrack, lasted_s: float) -> SceneHappening:
        """Return the event's summary and details for a stop that has lasted for ``lasted_s`` seconds."""
        summary = f"{track.label} has stood still in {self.rule.name} for {lasted_s:.1f} s"
        return SceneHappening(track=track, summary=summary, details={"stopped_s": round(lasted_s, 3)})
