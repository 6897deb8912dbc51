"""Rule ``zone``, which reports that an object has been inside a polygon for a given time. Pure."""

from __future__ import annotations

from typing import ClassVar, Literal

from ingest.site.entry import Seconds
from stream.analyse.lasting import LastingWatch
from stream.analyse.rule import PolygonRule, Scene, SceneHappening, SceneTrack


class ZoneRule(PolygonRule):
    """Report each visit to a polygon once, when the visit has lasted for ``dwell_s``."""

    EVENT_TYPE: ClassVar[str] = "sightline.zone.entered"

    type: Literal["zone"] = "zone"
    dwell_s: Seconds = 0.0

    def watch(self, width: int, height: int) -> ZoneWatch:
        """Return the initial state of the rule for pictures of ``width`` × ``height`` pixels."""
        return ZoneWatch(self, width, height, self.dwell_s)


class ZoneWatch(LastingWatch[ZoneRule]):
    """State of a zone rule: the present visits of tracks to the polygon."""

    def holds(self, track: SceneTrack, scene: Scene) -> bool:
        """Return whether the centre of a track's box is inside the polygon."""
        return self.covers(track.box.centre)

    def happening(self, track: SceneTrack, lasted_s: float) -> SceneHappening:
        """Return the event's summary and details for a visit that has lasted for ``lasted_s`` seconds."""
        stayed = f" for {lasted_s:.1f} s" if self.rule.dwell_s else ""
        summary = f"{track.label} in {self.rule.name}{stayed}"
        return SceneHappening(track=track, summary=summary, details={"stayed_s": round(lasted_s, 3)})
