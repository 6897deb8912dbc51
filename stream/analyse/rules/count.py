"""Rule ``count``, which reports that at least or at most a given number of objects has been inside a polygon for a
given time. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from ingest.site.entry import Seconds
from stream.analyse.geometry import inside
from stream.analyse.rule import PolygonRule, RuleWatch, Scene, SceneHappening
from stream.analyse.tracking.tracker import LOST_S

SETTLE_FRAMES = 3
"""Number of consecutive frames that begin or end an occurrence. One frame does not suffice, because a track appears
only with its second detection, and a detector may overlook an object in one frame."""


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
            raise ValueError("expected either at_least or at_most")
        return self

    @property
    def bound(self) -> str:
        """The bound in words, such as ``at least 3``."""
        return f"at most {self.at_most}" if self.at_least is None else f"at least {self.at_least}"

    def holds(self, count: int, slack: int = 0) -> bool:
        """Return whether a count is within the bound, or outside of the bound by at most ``slack``."""
        if self.at_least is not None:
            return count >= self.at_least - slack
        return self.at_most is not None and count <= self.at_most + slack

    def watch(self, width: int, height: int) -> CountWatch:
        """Return a new state of the rule for pictures of ``width`` × ``height`` pixels."""
        return CountWatch(self, width, height)


@dataclass
class _Occurrence:
    """A period in which the number of objects is within the rule's bound."""

    frame: str
    since_ns: int
    frames: int = 0
    failed: int = 0
    """Number of consecutive frames in which the number of objects was outside of the bound."""
    reported: bool = False


class CountWatch(RuleWatch[CountRule]):
    """State of a count rule: the present occurrence, during which the number of objects inside the polygon is within
    the bound.

    An occurrence that reaches ``for_s`` during the cooldown is reported after the cooldown if the occurrence still
    lasts.
    """

    def __init__(self, rule: CountRule, width: int, height: int) -> None:
        super().__init__(rule, width, height)
        self._occurrence: _Occurrence | None = None

    def step(self, scene: Scene) -> Iterator[SceneHappening]:
        """Process the next scene and return the occurrence to report now, if any."""
        rule = self.rule
        count = sum(rule.applies_to(track) and inside(self.shape, track.box.centre) for track in scene.tracks)
        occurrence = self._occurrence = self._updated(scene, count)
        if occurrence is None or occurrence.reported or not rule.holds(count) or self.is_quiet(scene):
            return
        lasted_ns = scene.at_ns - occurrence.since_ns
        if occurrence.frames >= SETTLE_FRAMES and lasted_ns >= rule.for_s * 1e9:
            occurrence.reported = True
            label, lasted_s = " or ".join(rule.labels), lasted_ns / 1e9
            objects = rule.subject_words or "objects"
            yield SceneHappening(
                occurrence=occurrence.frame,
                label=label,
                summary=f"{count} {objects} in {rule.name} for {lasted_s:.1f} s, {rule.bound}",
                details={"count": count, "lasted_s": round(lasted_s, 3)},
            )

    def settle(self, subject: str) -> None:
        """Note that the present occurrence has been reported."""
        if self._occurrence:
            self._occurrence.reported = True

    def _updated(self, scene: Scene, count: int) -> _Occurrence | None:
        """Return the present occurrence after a scene with ``count`` objects in the polygon; None if there is no
        occurrence."""
        occurrence = self._occurrence
        if occurrence and not occurrence.reported and scene.gap_s > LOST_S:
            occurrence = None  # the count during the gap is unknown
        slack = self.rule.hysteresis if occurrence and occurrence.reported else 0
        if self.rule.holds(count, slack):
            occurrence = occurrence or _Occurrence(scene.frame, scene.at_ns)
            occurrence.frames, occurrence.failed = occurrence.frames + 1, 0
        elif occurrence:
            occurrence.failed += 1
            if occurrence.failed >= SETTLE_FRAMES:
                return None
        return occurrence
