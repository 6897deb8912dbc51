"""Frames of one partition, prepared for one pipeline, and their results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from ingest.contract.records.base import Box, Count, Many, Name, Record
from ingest.contract.records.frame import RoutedFrame

Pixels = npt.NDArray[np.uint8]
PreparationName = Annotated[str, Field(max_length=32)]


class Fit(NamedTuple):
    """The mapping of a frame's region into the model's input: ``model = frame * scale + offset`` per axis."""

    scale_x: float
    scale_y: float
    offset_x: float
    offset_y: float

    def to_frame(self, box: Box) -> Box:
        """Map a box from pixels of the model's input back to pixels of the frame."""
        return Box(
            (box.left - self.offset_x) / self.scale_x,
            (box.top - self.offset_y) / self.scale_y,
            (box.right - self.offset_x) / self.scale_x,
            (box.bottom - self.offset_y) / self.scale_y,
        )


class Inner(NamedTuple):
    """The rectangle that a region's picture fills in the model's input, in whole pixels.

    The rest of the input is padding.
    """

    left: int
    top: int
    right: int
    bottom: int

    @property
    def area(self) -> int:
        """Area in pixels."""
        return (self.right - self.left) * (self.bottom - self.top)


class Region(NamedTuple):
    """One row of the batch: box in the frame, mapping into the model's input, and the rectangle it fills there."""

    box: Box
    fit: Fit
    inner: Inner


class Canvas(NamedTuple):
    """The size of a model's input: ``(height, width, channels)`` uint8."""

    height: int
    width: int
    channels: int

    def holds(self, inner: Inner) -> bool:
        """Return whether a rectangle is not empty and lies inside a canvas of this size."""
        left, top, right, bottom = inner
        return 0 <= left < right <= self.width and 0 <= top < bottom <= self.height


class Preparation(NamedTuple):
    """How the pictures of a batch were prepared: canvas, order of the colours, and fit of a region into the canvas.

    An empty ``colour`` or ``fit`` is unknown, as in the batches of older producers.
    """

    canvas: Canvas
    colour: str = ""
    fit: str = ""

    def suits(self, wanted: Preparation) -> bool:
        """Return whether a model that wants another preparation can use these pictures. Unknown values suit."""
        return all(not own or own == other for own, other in zip(self, wanted, strict=True))


def padded_rows(canvas: Canvas, pad: int, inners: Sequence[Inner], pictures: Sequence[Pixels]) -> Pixels:
    """Return one row per picture, filled with ``pad`` around the picture: ``(N, height, width, channels)`` uint8.

    Each picture is ``(bottom - top, right - left, channels)``. The returned array belongs to the caller.
    """
    rows = np.empty((len(inners), canvas.height, canvas.width, canvas.channels), np.uint8)
    pad_into(rows, pad, inners, pictures)
    return rows


def pad_into(rows: Pixels, pad: int, inners: Sequence[Inner], pictures: Sequence[Pixels]) -> None:
    """Write one picture into each of ``rows``, ``(N, height, width, channels)`` uint8, padded with ``pad``."""
    for row, inner, picture in zip(rows, inners, pictures, strict=True):
        if inner.area != row.shape[0] * row.shape[1]:
            row.fill(pad)
        row[inner.top : inner.bottom, inner.left : inner.right] = picture


class EncodedFrame(NamedTuple):
    """Format and size of the encoded frame that a batch carries for one of its items."""

    encoding: Literal["jpeg", "webp"]
    size_bytes: Count


class BatchItem(RoutedFrame):
    """One frame in a batch. An item that is ``empty`` or ``shed`` has no regions and so no pixels.

    ``attached`` describes the item's part of the batch's ``frames``. ``attached`` is None in a pipeline without
    second models, and for a frame that does not fit into a record beside its pixels.
    """

    KIND: ClassVar[str] = "item"

    outcome: Literal["classify", "empty", "shed"]
    regions: Many[Region] = ()
    attached: EncodedFrame | None = None

    @model_validator(mode="after")
    def _pixels_only_to_classify(self) -> Self:
        if bool(self.regions) != (self.outcome == "classify"):
            raise ValueError(
                f"{len(self.regions)} regions with outcome {self.outcome}: expected regions for classify, else none"
            )
        return self


class Batch(Record):
    """Frames of one partition for one pipeline, in the order of their offsets.

    ``pixels`` holds the pictures of all items' regions one after the other, each the size of its region's ``inner``,
    uint8 in C order. Padding is not sent, because it makes up 44 % of a square model's input for a 16:9 picture.
    ``frames`` holds the encoded frames of the items with ``attached``, one after the other, at full resolution.
    Second models classify parts of these frames.
    ``colour`` and ``fit`` are those of the pipeline, or empty from a producer before version 1.3.
    """

    KIND: ClassVar[str] = "batch"
    VERSION: ClassVar[tuple[int, int]] = (1, 3)

    pipeline: Name
    height: Count
    width: Count
    channels: Count
    colour: PreparationName = ""
    fit: PreparationName = ""
    items: Many[BatchItem]
    pixels: bytes
    frames: bytes = b""

    @property
    def rows(self) -> int:
        """Number of regions to classify."""
        return sum(len(item.regions) for item in self.items)

    @property
    def canvas(self) -> Canvas:
        """Size of the model's input."""
        return Canvas(self.height, self.width, self.channels)

    @property
    def preparation(self) -> Preparation:
        """How the pictures were prepared."""
        return Preparation(self.canvas, self.colour, self.fit)

    @property
    def inners(self) -> list[Inner]:
        """Rectangles of the pictures in the model's input, in the order of the regions."""
        return [region.inner for item in self.items for region in item.regions]

    def pictures(self) -> list[Pixels]:
        """Return the regions' pictures as read-only views, ``(bottom - top, right - left, channels)`` uint8 each."""
        views, at, flat = [], 0, np.frombuffer(self.pixels, np.uint8)
        for left, top, right, bottom in self.inners:
            shape = (bottom - top, right - left, self.channels)
            size = shape[0] * shape[1] * shape[2]
            views.append(flat[at : at + size].reshape(shape))
            at += size
        return views

    def attached_frames(self) -> list[bytes]:
        """Return the encoded frame of each item, empty for an item without one."""
        found, at = [], 0
        for item in self.items:
            size = item.attached.size_bytes if item.attached else 0
            found.append(self.frames[at : at + size])
            at += size
        return found

    def tensor(self, pad: int = 0) -> Pixels:
        """Return the model's input, ``(N, height, width, channels)`` uint8, padded."""
        return padded_rows(self.canvas, pad, self.inners, self.pictures())

    @model_validator(mode="after")
    def _pixels_fit(self) -> Self:
        outside = [inner for inner in self.inners if not self.canvas.holds(inner)]
        if outside:
            raise ValueError(
                f"{outside[0]} lies outside {self.canvas}: expected a rectangle inside the model's input"
            )
        expected = sum(inner.area for inner in self.inners) * self.channels
        if len(self.pixels) != expected:
            raise ValueError(f"{len(self.pixels)} bytes of pixels, expected {expected} for {self.rows} regions")
        return self

    @model_validator(mode="after")
    def _frames_fit(self) -> Self:
        expected = sum(item.attached.size_bytes for item in self.items if item.attached)
        if len(self.frames) != expected:
            raise ValueError(f"{len(self.frames)} bytes of frames, expected {expected} as the items declare")
        return self


class Attribute(Record):
    """A label that a second model gave to a detected object, or the reason why it gave none.

    ``name`` is the name of the second model in its pipeline. ``score`` is in 0..1, and ``model`` is
    ``name@version``. Without a label, ``missing`` is the reason:

    - ``small``: the box has fewer pixels than the second model needs.
    - ``unsure``: no label of the second model has a sufficient score.
    - ``limit``: the frame has too many objects with a higher score.
    - ``no_frame``: the batch has no frame at full resolution, or the frame cannot be decoded.
    - ``no_model``: the second model is not loaded.
    - ``failed``: the second model failed on this object.
    """

    KIND: ClassVar[str] = "attribute"

    name: Name
    label: str = ""
    score: float = 0.0
    model: str = ""
    missing: str = ""


class Detection(Record):
    """A labelled box, in pixels of the frame. ``score`` is in 0..1. ``attributes`` come from second models."""

    KIND: ClassVar[str] = "detection"

    box: Box
    label: str
    class_id: Count
    score: float
    attributes: Many[Attribute] = ()


class Result(RoutedFrame):
    """The final state of a delivered frame in one pipeline.

    The outcome is ``classified`` with detections (perhaps none), ``empty`` when no region of the frame showed motion
    or an unclassified stationary object, or ``shed`` with a reason. ``model`` is ``name@version`` for a classified
    frame. ``looked_at`` are the boxes that the model classified, as tight as the agent reported them.
    """

    KIND: ClassVar[str] = "result"
    VERSION: ClassVar[tuple[int, int]] = (1, 3)

    pipeline: Name
    finished_ns: Count
    outcome: Literal["classified", "empty", "shed"]
    model: str = ""
    detections: Many[Detection] = ()
    looked_at: Many[Box] = ()
