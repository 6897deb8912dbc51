"""Rule ``count``, which reports that at least or at most a given number of objects has been inside a polygon for a
given time. Pure."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from ingest.site.entry import Seconds
from stream.analyse.occurrence import OccurrenceWatch
from stream.analyse.rule import PolygonRule, Scene, SceneHappening, SceneTrack


class CountRule(PolygonRule):
    """Report once when at least ``at_least`` or at most ``at_most`` objects have been inside a polygon for ``for_s``.

    A reported occurrence ends when the number of objects is outside of the bound by more than ``hysteresis``.
    """

    EVENT_TYPE: ClassVar[str] = "sightline.zone.count"

    type: Literal["count"] = "count"
    at_least: int | None = Field(default=None, ge=1)
    at_most: int | None = Field(default=None, ge=0)
    for_s: Seconds = 0.0
    hysteresis: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _has_one_bound(self) -> Self:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("expected at_least or at_most, but not both")
        return self

    @property
    def bound(self) -> str:
        """The bound in words, such as ``at least 3``."""
        return f"at most {self.at_most}" if self.at_least is None else f"at least {self.at_least}"

    def watch(self, width: int, height: int) -> CountWatch:
        """Return the initial state of the rule for pictures of ``width`` × ``height`` pixels."""
        return CountWatch(self, width, height, self.for_s)


class CountWatch(OccurrenceWatch[CountRule]):
    """State of a count rule: the present occurrence, during which the number of objects inside the polygon is within
    the bound."""

    def counted(self, scene: Scene) -> list[SceneTrack]:
        """Return the tracks inside the polygon."""
        return [track for track in scene.visible if self.rule.applies_to(track) and self.covers(track.box.centre)]

    def holds(self, found: list[SceneTrack], *, reported: bool) -> bool:
        """Return whether the number of tracks is within the bound.

        Once the occurrence is reported, the number may be outside of the bound by ``hysteresis``. An occurrence of a
        rule with ``at_least`` always ends when no object is left, so that the next occurrence is reported.
        """
        slack = self.rule.hysteresis if reported else 0
        if self.rule.at_least is not None:
            return len(found) >= max(self.rule.at_least - slack, 1)
        return self.rule.at_most is not None and len(found) <= self.rule.at_most + slack

    def happening(self, found: list[SceneTrack], scene: Scene, occurrence: str, lasted_s: float) -> SceneHappening:
        """Return the event's summary and details for an occurrence that has lasted for ``lasted_s`` seconds."""
        objects = self.rule.subject_words or "objects"
        return SceneHappening(
            occurrence=occurrence,
            label=" or ".join(self.rule.labels),
            summary=f"{len(found)} {objects} in {self.rule.name} for {lasted_s:.1f} s, {self.rule.bound}",
            details={"count": len(found), "lasted_s": round(lasted_s, 3)},
        )
