"""Rule ``zone``, which reports that an object has been inside a polygon for a given time. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from ingest.site.entry import Seconds
from stream.analyse.geometry import inside
from stream.analyse.rule import PolygonRule, RuleWatch, Scene, SceneHappening, SceneTrack

LEAVE_FRAMES = 3
"""Number of consecutive frames outside of the polygon that end a visit. One frame does not suffice, because a box on
the edge of the polygon moves slightly from frame to frame."""


class ZoneRule(PolygonRule):
    """Report each visit to a polygon once, when the visit has lasted for ``dwell_s``."""

    EVENT_TYPE: ClassVar[str] = "sightline.zone.entered"

    type: Literal["zone"] = "zone"
    dwell_s: Seconds = 0.0

    def watch(self, width: int, height: int) -> ZoneWatch:
        """Return a new state of the rule for pictures of ``width`` × ``height`` pixels."""
        return ZoneWatch(self, width, height)


@dataclass
class _Visit:
    since_ns: int
    outside: int = 0
    reported: bool = False


class ZoneWatch(RuleWatch[ZoneRule]):
    """State of a zone rule: the present visits of tracks to the polygon.

    If a visit reaches the dwell time during the cooldown of its track, the visit is reported after the cooldown. If a
    visit reaches the dwell time while the rule does not apply to its track, the visit is reported as soon as the rule
    applies. A visit that ends before it can be reported is not reported.
    """

    def __init__(self, rule: ZoneRule, width: int, height: int) -> None:
        super().__init__(rule, width, height)
        self._dwell_ns = round(rule.dwell_s * 1e9)
        self._visits: dict[str, _Visit] = {}

    def step(self, scene: Scene) -> Iterator[SceneHappening]:
        """Process the next scene and return the visits to report now."""
        for track in scene.tracks:
            visit = self._visit(track, scene.at_ns)
            if visit is None or visit.reported or scene.at_ns - visit.since_ns < self._dwell_ns:
                continue
            if self.rule.applies_to(track) and not self.is_quiet(scene, track.name):
                visit.reported = True
                stayed_s = (scene.at_ns - visit.since_ns) / 1e9
                stayed = f" for {stayed_s:.1f} s" if self.rule.dwell_s else ""
                summary = f"{track.label} in {self.rule.name}{stayed}"
                yield SceneHappening(track=track, summary=summary, details={"stayed_s": round(stayed_s, 3)})

    def settle(self, subject: str) -> None:
        """Note that the visit of a track has been reported."""
        if subject in self._visits:
            self._visits[subject].reported = True

    def forget(self, track: str) -> None:
        """Drop the visit of a track that has ended."""
        super().forget(track)
        self._visits.pop(track, None)

    def _visit(self, track: SceneTrack, at_ns: int) -> _Visit | None:
        """Return the present visit of a track inside the polygon, creating it if necessary."""
        visit = self._visits.get(track.name)
        if inside(self.shape, track.box.centre):
            visit = self._visits.setdefault(track.name, _Visit(at_ns))
            visit.outside = 0
            return visit
        if visit:
            visit.outside += 1
            if visit.outside >= LEAVE_FRAMES:
                del self._visits[track.name]
        return None
