"""Configuration of measures: what is counted and measured per minute at a line, in a zone or between lines."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from ingest.contract.records.base import Name
from ingest.site.entry import Anchor, Polygon, RelativeLine, RelativePoint, Share, SharedEntry

_KEYS = {"line": ("start", "end"), "zone": ("polygon",), "flow": ("lines",)}


class MeasureConfig(SharedEntry):
    """A measure over the tracks of one camera and pipeline, with one record per minute on the topic ``measures``.

    The type decides which keys are needed: ``line`` needs ``start`` and ``end``, ``zone`` needs ``polygon``, ``flow``
    needs ``lines``.
    """

    KIND: ClassVar[str] = "measure"

    type: Literal["line", "zone", "flow"]
    camera: Name
    pipeline: Name
    labels: tuple[str, ...] = ()
    """Labels of the objects that are measured; empty for all objects."""
    min_score: Share = 0.3
    start: RelativePoint | None = None
    end: RelativePoint | None = None
    anchor: Anchor = "centre"
    """Point of an object that has to cross the line, in a measure of the type ``line``, as in the rule ``line``."""
    polygon: Polygon | None = None
    lines: dict[Name, RelativeLine] = {}
    lanes: int = Field(default=1, ge=1)
    """Number of lanes in the polygon, for the density of vehicles per kilometre and lane."""
    length_m: float | None = Field(default=None, gt=0.0)
    """Length of the road in the polygon in metres; without it, no density is computed."""

    @model_validator(mode="after")
    def _has_its_shape(self) -> Self:
        missing = [key for key in _KEYS[self.type] if not getattr(self, key)]
        others = [
            key
            for type_, keys in _KEYS.items()
            for key in keys
            if type_ != self.type and getattr(self, key) not in (None, {})
        ]
        if missing:
            raise ValueError(f"expected {' and '.join(missing)} in a measure of the type {self.type}")
        if others:
            raise ValueError(f"expected no {' and no '.join(others)} in a measure of the type {self.type}")
        if self.start is not None and self.start == self.end:
            raise ValueError("expected two different points as start and end")
        if self.anchor != "centre" and self.type != "line":
            raise ValueError(f"expected no anchor in a measure of the type {self.type}")
        if self.type == "flow" and len(self.lines) < 2:
            raise ValueError("expected at least two lines in a measure of the type flow")
        return self
