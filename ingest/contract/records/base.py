"""Base class and value types of all records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, NamedTuple, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from ingest.contract.identity import NAME_PATTERN

Name = Annotated[str, Field(pattern=NAME_PATTERN)]
T = TypeVar("T")
Many = Annotated[tuple[T, ...], Field(fail_fast=True)]
"""Any number of values. Validation ends at the first invalid value: the errors of a million values would take a
gigabyte."""
MAX_KEYS = 10_000
"""Maximum number of keys of a map. Rules use a few keys; a heartbeat has a few figures per camera."""


def _bounded(value: Any) -> Any:
    if isinstance(value, Mapping) and len(value) > MAX_KEYS:
        raise ValueError(f"{len(value)} keys: expected at most {MAX_KEYS}")
    return value


SmallMap = BeforeValidator(_bounded)
"""Validator that refuses a map with more than ``MAX_KEYS`` keys before it validates the values."""
Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
"""Id of an event, incident or alert. The id becomes a header, a ``webhook-id`` and part of a file's name."""
Count = Annotated[int, Field(ge=0, le=2**63 - 1)]
MAX_PX = 1_000_000
"""Largest coordinate in pixels, positive or negative. A picture is at most 65,535 pixels wide, and drawing needs
32-bit coordinates."""
Coordinate = Annotated[float, Field(ge=-MAX_PX, le=MAX_PX)]
Point = tuple[Coordinate, Coordinate]
"""x, y in pixels of the frame, y downwards, unless a docstring says relative (0..1)."""


class Record(BaseModel):
    """Base of every record on the wire: frozen, strictly typed, versioned.

    Unknown fields are ignored, because a newer minor version may add fields. Infinity and NaN are refused in every
    field.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", allow_inf_nan=False)

    KIND: ClassVar[str]
    VERSION: ClassVar[tuple[int, int]] = (1, 0)


class Box(NamedTuple):
    """A rectangle in pixels of the frame: left, top, right, bottom; right and bottom are exclusive.

    A record whose box lies beyond ``MAX_PX`` is refused, because such a box cannot be drawn, cropped or tracked.
    """

    left: Coordinate
    top: Coordinate
    right: Coordinate
    bottom: Coordinate

    @property
    def width(self) -> float:
        """Width in pixels."""
        return self.right - self.left

    @property
    def height(self) -> float:
        """Height in pixels."""
        return self.bottom - self.top

    @property
    def area(self) -> float:
        """Area in square pixels."""
        return self.width * self.height

    @property
    def centre(self) -> Point:
        """The centre, x and y in pixels."""
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2

    def shared(self, other: Box) -> float:
        """Return the area of the intersection of both boxes, in square pixels."""
        width = min(self.right, other.right) - max(self.left, other.left)
        if width <= 0.0:
            return 0.0
        return width * max(min(self.bottom, other.bottom) - max(self.top, other.top), 0.0)

    def iou(self, other: Box) -> float:
        """Return the intersection over the union, 0..1; 0 for boxes that share no area."""
        shared = self.shared(other)
        return shared / (self.area + other.area - shared) if shared else 0.0

    def overlap(self, other: Box) -> float:
        """Return the intersection over the smaller area, 0..1; 0 for boxes that share no area."""
        shared = self.shared(other)
        return shared / min(self.area, other.area) if shared else 0.0

    def union(self, other: Box) -> Box:
        """Return the smallest box that contains both boxes."""
        left, top = min(self.left, other.left), min(self.top, other.top)
        return Box(left, top, max(self.right, other.right), max(self.bottom, other.bottom))

    def scaled(self, x: float, y: float) -> Box:
        """Return the box with its coordinates multiplied, after its picture was resized by these factors."""
        return Box(self.left * x, self.top * y, self.right * x, self.bottom * y)

    def widened(self, share: float) -> Box:
        """Return the box with a margin: ``share`` of the width left and right, of the height above and below."""
        x, y = self.width * share, self.height * share
        return Box(self.left - x, self.top - y, self.right + x, self.bottom + y)

    def clipped(self, width: float, height: float) -> Box:
        """Return the part inside a frame of this size. The result has no area if the box is outside the frame."""
        right, bottom = float(width), float(height)
        return Box(
            min(max(self.left, 0.0), right),
            min(max(self.top, 0.0), bottom),
            min(max(self.right, 0.0), right),
            min(max(self.bottom, 0.0), bottom),
        )


class FrameRef(NamedTuple):
    """Topic, partition and offset of a frame's record.

    Evidence and replay read the frame's original bytes from this position. ``topic`` is the topic's name in the
    contract, without prefix.
    """

    topic: Annotated[str, Field(pattern=r"^frames(\.late)?$")]
    partition: Annotated[int, Field(ge=0, le=2**31 - 1)]
    offset: Count
