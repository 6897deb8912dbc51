"""Base class and value types of all records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, NamedTuple, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from ingest.contract.identity import NAME_PATTERN

Name = Annotated[str, Field(pattern=NAME_PATTERN)]
T = TypeVar("T")
Many = Annotated[tuple[T, ...], Field(fail_fast=True)]
"""A tuple of any number of values. Validation ends at the first invalid value, because the errors of a million values
would take a gigabyte of memory."""
MAX_KEYS = 10_000
"""Maximum number of keys in one map of a record. Real maps are much smaller: an event's details have a few keys, and
a heartbeat has a few figures per camera."""


def _bounded(value: Any) -> Any:
    if isinstance(value, Mapping) and len(value) > MAX_KEYS:
        raise ValueError(f"the map has {len(value)} keys: expected at most {MAX_KEYS}")
    return value


SmallMap = BeforeValidator(_bounded)
"""Validator that refuses a map with more than ``MAX_KEYS`` keys before it validates the values."""
Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
"""Id of an event, incident or alert. The pattern allows only characters that are safe in a header, such as
``webhook-id``, and in a file's name."""
Count = Annotated[int, Field(ge=0, le=2**63 - 1)]
MAX_PX = 1_000_000
"""Largest absolute value of a coordinate, in pixels. This limit is above the largest width of a picture (65,535
pixels) and within the 32-bit coordinates of drawing functions."""
Coordinate = Annotated[float, Field(ge=-MAX_PX, le=MAX_PX)]
Point = tuple[Coordinate, Coordinate]
"""A point ``(x, y)`` in pixels of the frame, y downwards. Coordinates are relative to the frame's size (0..1) only
where a docstring says so."""


class Record(BaseModel):
    """Base of every record on the wire: frozen, strictly typed, versioned.

    Unknown fields are ignored, because a newer minor version may add fields. Infinity and NaN are refused in every
    field except those of the type ``AnyFloat``.
    """

    # A process uses a few of the many types of records; the validators of the others would take a tenth of its start
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", allow_inf_nan=False, defer_build=True)

    KIND: ClassVar[str]
    VERSION: ClassVar[tuple[int, int]] = (1, 0)


class Box(NamedTuple):
    """A rectangle in pixels of the frame: left, top, right, bottom; right and bottom are exclusive.

    A record with a box that has a coordinate beyond ``MAX_PX`` is refused, because such a box cannot be drawn,
    cropped or tracked.
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
        left, top, right, bottom = self
        return (right - left) * (bottom - top)

    @property
    def centre(self) -> Point:
        """The centre of the box, ``(x, y)`` in pixels."""
        left, top, right, bottom = self
        return (left + right) / 2, (top + bottom) / 2

    def shared(self, other: Box) -> float:
        """Return the area of the intersection of this box and ``other``, in square pixels."""
        left, top, right, bottom = self
        other_left, other_top, other_right, other_bottom = other
        # comparisons take a third of the time of min and max
        width = (right if right < other_right else other_right) - (left if left > other_left else other_left)
        if width <= 0.0:
            return 0.0
        height = (bottom if bottom < other_bottom else other_bottom) - (top if top > other_top else other_top)
        return width * height if height > 0.0 else 0.0

    def iou(self, other: Box) -> float:
        """Return the intersection over union of the box and ``other``, 0..1; 0 for boxes that share no area."""
        shared = self.shared(other)
        return shared / (self.area + other.area - shared) if shared else 0.0

    def overlap(self, other: Box) -> float:
        """Return the area that this box and ``other`` share, divided by the area of the smaller box, 0..1.

        Return 0 for boxes that share no area.
        """
        shared = self.shared(other)
        return shared / min(self.area, other.area) if shared else 0.0

    def union(self, other: Box) -> Box:
        """Return the smallest box that contains this box and ``other``."""
        left, top = min(self.left, other.left), min(self.top, other.top)
        return Box(left, top, max(self.right, other.right), max(self.bottom, other.bottom))

    def scaled(self, x: float, y: float) -> Box:
        """Return the box for a picture that was resized by the factors ``x`` (width) and ``y`` (height)."""
        return Box(self.left * x, self.top * y, self.right * x, self.bottom * y)

    def widened(self, share: float) -> Box:
        """Return the box with a margin on all four sides.

        The left and right margins are ``share`` of the width, the upper and lower margins ``share`` of the height.
        """
        x, y = self.width * share, self.height * share
        return Box(self.left - x, self.top - y, self.right + x, self.bottom + y)

    def clipped(self, width: float, height: float) -> Box:
        """Return the part of the box inside a frame of ``width`` × ``height`` pixels.

        The result has no area if the box is outside the frame.
        """
        right, bottom = float(width), float(height)
        return Box(
            min(max(self.left, 0.0), right),
            min(max(self.top, 0.0), bottom),
            min(max(self.right, 0.0), right),
            min(max(self.bottom, 0.0), bottom),
        )


class FrameRef(NamedTuple):
    """Topic, partition and offset of a frame's record.

    With this position, the evidence of an alert and a replay of frames read the frame's original bytes. ``topic`` is
    the topic's name without the deployment's prefix.
    """

    topic: Annotated[str, Field(pattern=r"^frames(\.late)?$")]
    partition: Annotated[int, Field(ge=0, le=2**31 - 1)]
    offset: Count
