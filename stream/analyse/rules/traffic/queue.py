"""Rule ``queue``, which reports a queue of objects that stand still or creep, with its length. Pure."""

from __future__ import annotations

import itertools
import math
from typing import ClassVar, Literal

from pydantic import Field

from ingest.contract.records.event import DetailValue
from ingest.site.entry import Seconds, Share
from stream.analyse.occurrence import OccurrenceWatch
from stream.analyse.rule import PolygonRule, Scene, SceneHappening, SceneTrack


class QueueRule(PolygonRule):
    """Report once when at least ``at_least`` objects have queued inside the polygon for ``for_s``.

    An object queues if it stands still, or if its distance from the start of its trail is at most ``creep`` of the
    picture's diagonal. The queue ends when the number of its objects is below ``at_least`` by more than
    ``hysteresis``.
    """

    EVENT_TYPE: ClassVar[str] = "sightline.queue"

    type: Literal["queue"] = "queue"
    at_least: int = Field(default=3, ge=1)
    for_s: Seconds = 10.0
    hysteresis: int = Field(default=0, ge=0)
    creep: Share = 0.02

    def watch(self, width: int, height: int) -> QueueWatch:
        """Return the initial state of the rule for pictures of ``width`` × ``height`` pixels."""
        return QueueWatch(self, width, height)


class QueueWatch(OccurrenceWatch[QueueRule]):
    """State of the rule: the present queue."""

    def __init__(self, rule: QueueRule, width: int, height: int) -> None:
        super().__init__(rule, width, height, rule.for_s)
        self._creep_px = rule.creep * math.hypot(width, height)

    def counted(self, scene: Scene) -> list[SceneTrack]:
        """Return the tracks that queue."""
        return [
            track
            for track in scene.visible
            if self.rule.applies_to(track) and self.covers(track.box.centre) and self._queues(track)
        ]

    def holds(self, found: list[SceneTrack], *, reported: bool) -> bool:
        """Return whether enough tracks queue to begin a queue, or to continue a reported queue.

        A queue always ends when no object is left, so that the next queue is reported.
        """
        return len(found) >= max(self.rule.at_least - (self.rule.hysteresis if reported else 0), 1)

    def happening(self, found: list[SceneTrack], scene: Scene, occurrence: str, lasted_s: float) -> SceneHappening:
        """Return the event's summary and details for a queue, with its length in metres if the camera has a ground
        plane."""
        details: dict[str, DetailValue] = {"count": len(found), "lasted_s": round(lasted_s, 3)}
        length = ""
        places = [scene.ground.to_metres(track.foot) for track in found] if scene.ground else []
        known = [place for place in places if place]
        if len(known) > 1:
            length_m = max(math.dist(one, other) for one, other in itertools.combinations(known, 2))
            details["length_m"] = round(length_m, 1)
            length = f", {length_m:.0f} m long"
        objects = self.rule.subject_words or "objects"
        return SceneHappening(
            occurrence=occurrence,
            label=" or ".join(self.rule.labels),
            summary=f"{len(found)} {objects} have queued in {self.rule.name} for {lasted_s:.0f} s{length}",
            details=details,
        )

    def _queues(self, track: SceneTrack) -> bool:
        if track.at_rest:
            return True
        first = next(iter(track.trail), None)
        return first is not None and len(track.trail) > 1 and math.dist(first, track.box.centre) <= self._creep_px
