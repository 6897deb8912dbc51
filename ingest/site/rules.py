"""The rules of a site: what makes an event."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from ingest.contract.records.base import Name
from ingest.site.entry import RelativePoint, Seconds, Share, SharedEntry


class _Rule(SharedEntry):
    KIND: ClassVar[str] = "rule"

    severity: Literal["info", "warning", "critical"] = "warning"
    cooldown_s: Seconds = 0.0
    """After an event, the same track is quiet for this rule for so long."""


class _CameraRule(_Rule):
    camera: Name
    pipeline: Name
    labels: tuple[str, ...] = ()
    """Empty for all labels."""
    min_score: Share = 0.3

    def watches(self, label: str, score: float) -> bool:
        """Tell whether a detection is one this rule looks at."""
        return score >= self.min_score and (not self.labels or label in self.labels)


class ZoneRule(_CameraRule):
    """Something of the given labels is inside a polygon for at least ``dwell_s``."""

    type: Literal["zone"] = "zone"
    polygon: tuple[RelativePoint, ...] = Field(min_length=3)
    dwell_s: Seconds = 0.0


class LineRule(_CameraRule):
    """Something crosses the line from ``start`` to ``end``.

    ``forward`` is from the left of the line to its right, looking from start to end, y downwards.
    """

    type: Literal["line"] = "line"
    start: RelativePoint
    end: RelativePoint
    direction: Literal["forward", "backward", "both"] = "both"

    @model_validator(mode="after")
    def _has_length(self) -> Self:
        if self.start == self.end:
            raise ValueError("start and end are the same point: expected a line with a length")
        return self


class ThresholdRule(_Rule):
    """The mean of a sensor's window is above or below a value."""

    type: Literal["threshold"] = "threshold"
    sensor: Name
    window_s: float = Field(default=5.0, gt=0.0)
    above: float | None = None
    below: float | None = None
    min_readings: int = Field(default=3, ge=1)

    @model_validator(mode="after")
    def _has_a_bound(self) -> Self:
        if self.above is None and self.below is None:
            raise ValueError("expected above, below or both")
        return self


Rule = Annotated[ZoneRule | LineRule | ThresholdRule, Field(discriminator="type")]
