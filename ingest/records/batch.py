"""Frames of one partition, prepared for one pipeline."""

from __future__ import annotations

from typing import ClassVar, Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from pydantic import model_validator

from ingest.identity import FrameId
from ingest.records.base import Box, Count, FrameRef, Name, Record

__all__ = ["Batch", "BatchItem", "Fit", "Region"]


class Fit(NamedTuple):
    """How a region of the frame was laid into the model's input: ``model = frame * scale + offset`` per axis."""

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


class Region(NamedTuple):
    """One row of the batch: the part of the frame it shows, and how it was fitted."""

    box: Box
    fit: Fit


class BatchItem(Record):
    """One frame in a batch. An item that is ``empty`` or ``shed`` has no regions and so no pixels.

    ``pipelines`` are all pipelines that the frame was routed to, so that the auditor knows what to expect.
    ``withheld`` counts, by reason, the frames that the agent withheld just before this one.
    """

    KIND: ClassVar[str] = "item"

    camera: Name
    epoch: Count
    seq: Count
    lane: str
    captured_ns: Count
    width: Count
    height: Count
    source: FrameRef
    pipelines: tuple[Name, ...]
    outcome: Literal["classify", "empty", "shed"]
    reason: str = ""
    regions: tuple[Region, ...] = ()
    withheld: dict[str, Count] = {}
    traceparent: str = ""

    @property
    def id(self) -> FrameId:
        """The frame's identity."""
        return FrameId(self.camera, self.epoch, self.seq)

    @model_validator(mode="after")
    def _pixels_only_to_classify(self) -> Self:
        if bool(self.regions) != (self.outcome == "classify"):
            raise ValueError(f"an item to {self.outcome} has {len(self.regions)} regions")
        return self


class Batch(Record):
    """Frames of one partition for one pipeline, in the order of their offsets.

    ``pixels`` is ``(N, height, width, channels)`` uint8 in C order, N the number of all items' regions.
    """

    KIND: ClassVar[str] = "batch"

    pipeline: Name
    height: Count
    width: Count
    channels: Count
    items: tuple[BatchItem, ...]
    pixels: bytes

    @property
    def rows(self) -> int:
        """How many regions there are to classify."""
        return sum(len(item.regions) for item in self.items)

    def tensor(self) -> npt.NDArray[np.uint8]:
        """Return the pixels as a read-only view, ``(N, height, width, channels)`` uint8."""
        return np.frombuffer(self.pixels, np.uint8).reshape(self.rows, self.height, self.width, self.channels)

    @model_validator(mode="after")
    def _pixels_fit(self) -> Self:
        expected = self.rows * self.height * self.width * self.channels
        if len(self.pixels) != expected:
            raise ValueError(f"{len(self.pixels)} bytes of pixels, expected {expected} for {self.rows} regions")
        return self
