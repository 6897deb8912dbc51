"""Frames of one partition, prepared for one pipeline, and their results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_serializer, model_validator

from ingest.contract.records.base import Box, Count, Many, Name, Record
from ingest.contract.records.frame import RoutedFrame
from ingest.contract.records.lens import Lens

Pixels = npt.NDArray[np.uint8]
PreparationName = Annotated[str, Field(max_length=32)]
MAX_EMBEDDING = 512
"""Maximum number of components of an embedding. Models for re-identification of persons give 128 to 512."""


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

    The rest of the model's input is padding.
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
    """One region of a frame that the model classifies.

    ``fit`` maps the frame into the model's input, and ``inner`` is the rectangle that the region's picture fills in
    the model's input.
    """

    box: Box
    fit: Fit
    inner: Inner


class Canvas(NamedTuple):
    """The shape of a model's input, which is a uint8 array ``(height, width, channels)``."""

    height: int
    width: int
    channels: int

    def holds(self, inner: Inner) -> bool:
        """Return whether a rectangle is not empty and lies inside a canvas of this size."""
        left, top, right, bottom = inner
        return 0 <= left < right <= self.width and 0 <= top < bottom <= self.height


class Preparation(NamedTuple):
    """How the pictures of a batch were prepared.

    ``canvas`` is the input's shape, ``colour`` the order of the colour channels, and ``fit`` the method of fitting a
    region into the canvas. An empty ``colour`` or ``fit`` means unknown: producers before version 1.3 of the batch
    record do not state these values.
    """

    canvas: Canvas
    colour: str = ""
    fit: str = ""

    def suits(self, wanted: Preparation) -> bool:
        """Return whether a model that expects the preparation ``wanted`` can use the pictures of the batch.

        A value that this preparation leaves empty suits every model.
        """
        return all(not own or own == other for own, other in zip(self, wanted, strict=True))


def padded_rows(canvas: Canvas, pad: int, inners: Sequence[Inner], pictures: Sequence[Pixels]) -> Pixels:
    """Return a uint8 array ``(N, height, width, channels)`` with one padded picture per row.

    ``pad`` is the value of the padding. Each picture is an array ``(bottom - top, right - left, channels)``, with the
    edges given by the picture's ``Inner``. The caller may change the returned array.
    """
    rows = np.empty((len(inners), canvas.height, canvas.width, canvas.channels), np.uint8)
    pad_into(rows, pad, inners, pictures)
    return rows


def pad_into(rows: Pixels, pad: int, inners: Sequence[Inner], pictures: Sequence[Pixels]) -> None:
    """Write one picture into each row of ``rows``, and pad the picture with the value ``pad``.

    ``rows`` is a uint8 array ``(N, height, width, channels)``.
    """
    for row, inner, picture in zip(rows, inners, pictures, strict=True):
        padded_place(row, pad, inner)[:] = picture


def padded_place(row: Pixels, pad: int, inner: Inner) -> Pixels:
    """Pad one row around ``inner`` with the value ``pad``, and return the part of the row inside ``inner``, to which
    the caller writes the picture.

    ``row`` is a uint8 array ``(height, width, channels)``.
    """
    if inner.area != row.shape[0] * row.shape[1]:
        row.fill(pad)
    return row[inner.top : inner.bottom, inner.left : inner.right]


class EncodedFrame(NamedTuple):
    """Format and size of the encoded frame that a batch carries for one of its items."""

    encoding: Literal["jpeg", "webp"]
    size_bytes: Count


class BatchItem(RoutedFrame):
    """One frame in a batch. Only an item whose outcome is ``classify`` has regions and therefore pixels.

    A pipeline of moving regions has no model, and its outcome is ``motion``: the boxes that the motion gate found, in
    the fields ``motion`` and ``resting``, are the detected objects.

    ``attached`` describes the item's encoded frame in the batch's field ``frames``; it is None for an item without an
    encoded frame. If ``cropped`` is true, the batch's ``pixels`` hold the pictures of the item's regions. If
    ``cropped`` is false, the reader decodes the attached frame and crops the regions itself.

    With a ``lens``, the model gets regions of the undistorted frame: ``fit`` of each region maps pixels of the
    undistorted frame to the model's input, and the reader maps detected boxes back with ``lens``. ``box`` of each
    region and the attached frame are as the camera sent them.
    """

    KIND: ClassVar[str] = "item"

    outcome: Literal["classify", "motion", "empty", "shed"]
    regions: Many[Region] = ()
    attached: EncodedFrame | None = None
    cropped: bool = True
    lens: Lens | None = None

    @model_validator(mode="after")
    def _pixels_only_to_classify(self) -> Self:
        if bool(self.regions) != (self.outcome == "classify"):
            raise ValueError(
                f"{len(self.regions)} regions and outcome {self.outcome}: expected regions only with outcome classify"
            )
        if not self.cropped and self.attached is None:
            raise ValueError("cropped is false and attached is missing: expected an encoded frame")
        return self


class Batch(Record):
    """Frames of one partition for one pipeline, in the order of their offsets.

    ``pixels`` holds the pictures of the regions of all cropped items one after the other, as uint8 in C order. Each
    picture has the size of its region's ``inner``. Padding is not sent, because it makes up 44 % of a square model's
    input for a 16:9 picture. ``frames`` holds the encoded frames of the items with ``attached``, one after the other,
    at full resolution. From these encoded frames, engine nodes crop the regions of items that have no pictures in
    ``pixels``, and the detected objects that a second-stage model classifies. ``colour`` and ``fit`` are the
    pipeline's values, or empty in a batch before version 1.3. All items of a batch before version 1.4 are cropped.
    Items have the outcome ``motion`` since version 1.5, and a ``lens`` since version 1.7.
    """

    KIND: ClassVar[str] = "batch"
    VERSION: ClassVar[tuple[int, int]] = (1, 7)

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
    def canvas(self) -> Canvas:
        """Size of the model's input."""
        return Canvas(self.height, self.width, self.channels)

    @property
    def preparation(self) -> Preparation:
        """How the pictures of this batch were prepared."""
        return Preparation(self.canvas, self.colour, self.fit)

    def pictures(self) -> list[list[Pixels]]:
        """Return the pictures of each item's regions as read-only views, ``(bottom - top, right - left, channels)``
        uint8 each; an empty list for an item that is not cropped."""
        found, at, flat = [], 0, np.frombuffer(self.pixels, np.uint8)
        for item in self.items:
            views = []
            for left, top, right, bottom in _sent(item):
                shape = (bottom - top, right - left, self.channels)
                size = shape[0] * shape[1] * shape[2]
                views.append(flat[at : at + size].reshape(shape))
                at += size
            found.append(views)
        return found

    def attached_frames(self) -> list[bytes]:
        """Return the encoded frame of each item, empty bytes for an item without an attached frame."""
        found, at = [], 0
        for item in self.items:
            size = item.attached.size_bytes if item.attached else 0
            found.append(self.frames[at : at + size])
            at += size
        return found

    @model_validator(mode="after")
    def _pixels_fit(self) -> Self:
        inners = [region.inner for item in self.items for region in item.regions]
        outside = [inner for inner in inners if not self.canvas.holds(inner)]
        if outside:
            raise ValueError(
                f"rectangle {outside[0]} lies outside {self.canvas}: expected a rectangle inside the model's input"
            )
        sent = [inner for item in self.items for inner in _sent(item)]
        expected = sum(inner.area for inner in sent) * self.channels
        if len(self.pixels) != expected:
            raise ValueError(
                f"the batch has {len(self.pixels)} bytes of pixels: expected {expected} for its {len(sent)} regions"
            )
        return self

    @model_validator(mode="after")
    def _frames_fit(self) -> Self:
        expected = sum(item.attached.size_bytes for item in self.items if item.attached)
        if len(self.frames) != expected:
            raise ValueError(
                f"the batch has {len(self.frames)} bytes of frames: expected {expected}, the sum of its items"
            )
        return self


def _sent(item: BatchItem) -> list[Inner]:
    """Return the rectangle of each region's picture inside the batch's ``pixels``. The list is empty for an item
    whose regions are not cropped yet."""
    return [region.inner for region in item.regions] if item.cropped else []


class Attribute(Record):
    """A label that a second-stage model gave to a detected object, or the reason why the object has no label.

    ``name`` is the attribute's name, for example ``type``, which the pipeline gives to this second-stage model.
    ``score`` is in 0..1, and ``model`` is ``name@version``. Without a label, ``missing`` is the reason:

    - ``small``: the box has fewer pixels than the second-stage model needs.
    - ``unsure``: no label of the second-stage model has a sufficient score.
    - ``limit``: second-stage models classify a limited number of objects per frame, and enough other objects have a
      higher score.
    - ``no_frame``: the batch has no frame at full resolution, or the frame cannot be decoded.
    - ``no_model``: the second-stage model is not loaded.
    - ``failed``: the second-stage model failed on this object.
    """

    KIND: ClassVar[str] = "attribute"

    name: Name
    label: str = ""
    score: float = 0.0
    model: str = ""
    missing: str = ""


class Embedding(Record):
    """A vector that a second-stage model gave to a detected object. Pictures of one object have similar vectors.

    ``name`` is the name that the pipeline gives to the second-stage model, and ``model`` is ``name@version``. Each
    byte of ``values`` is one component as int8. Only the direction of the vector has a meaning: the vector is scaled
    so that its largest component is 127 or -127. As JSON, which is for people, an embedding has ``dimensions``
    instead of ``values``, because the embedding of a person is personal data.
    """

    KIND: ClassVar[str] = "embedding"

    name: Name
    model: str = ""
    values: Annotated[bytes, Field(min_length=1, max_length=MAX_EMBEDDING)]

    @model_serializer(mode="plain", when_used="json")
    def _without_values(self) -> dict[str, Any]:
        return {"name": self.name, "model": self.model, "dimensions": len(self.values)}


class Detection(Record):
    """A labelled box, in pixels of the frame.

    ``score`` is in 0..1. ``attributes`` are the labels that second-stage models gave to the object, and
    ``embeddings`` are the vectors of second-stage models that describe its appearance.
    """

    KIND: ClassVar[str] = "detection"

    box: Box
    label: str
    class_id: Count
    score: float
    attributes: Many[Attribute] = ()
    embeddings: Many[Embedding] = ()


class Result(RoutedFrame):
    """The final state of a delivered frame in one pipeline.

    The outcome is ``classified`` with detections (perhaps none), ``empty`` when the frame showed neither motion nor a
    stationary object that still had to be classified, or ``shed`` with a reason. ``model`` is ``name@version`` for a
    classified frame. ``looked_at`` holds the boxes of the classified regions, as the agent reported them, without the
    margin that was added for the model. Detections have embeddings since version 1.5.
    """

    KIND: ClassVar[str] = "result"
    VERSION: ClassVar[tuple[int, int]] = (1, 5)

    pipeline: Name
    finished_ns: Count
    outcome: Literal["classified", "empty", "shed"]
    model: str = ""
    detections: Many[Detection] = ()
    looked_at: Many[Box] = ()
