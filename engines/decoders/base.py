"""The seam for what reads a model's outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from engines.engine import Outputs
from engines.exceptions import InferenceFailed
from ingest.contract.records import Box, Detection, Region


class FrameRegion(NamedTuple):
    """One row of a batch: the region that it shows, and the size of its frame in px."""

    region: Region
    frame_width: int
    frame_height: int


@dataclass(frozen=True, slots=True)
class DecoderOptions:
    """What a decoder needs to know of its model and pipeline."""

    labels: tuple[str, ...]
    input_width: int
    input_height: int
    min_score: float = 0.3
    max_overlap: float = 0.45
    """Boxes of one class that overlap more than this (intersection over union) are one object."""


class OutputDecoder(Protocol):
    """Turns a model's arrays into detections. Pure; may be called from any thread."""

    def decode(self, outputs: Outputs, rows: Sequence[FrameRegion]) -> list[list[Detection]]:
        """Return the detections of each row, best first, in pixels of the frame and clipped to it.

        Raise InferenceFailed when the arrays do not have the shape that this decoder reads, or are not finite.
        """
        ...


def clipped(box: Box, row: FrameRegion) -> Box | None:
    """Return a box cut to the frame, None when nothing is left of it."""
    cut = box.clipped(row.frame_width, row.frame_height)
    return cut if cut.width > 0 and cut.height > 0 else None


def only_output(outputs: Outputs, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Return the first output of a model. Raise InferenceFailed unless it has that shape and only finite numbers."""
    if not outputs:
        raise InferenceFailed("the model has no output")
    name, values = next(iter(outputs.items()))
    if values.shape != shape:
        raise InferenceFailed(f"output {name} {values.shape}: expected {shape} for this input size and these labels")
    if not np.isfinite(values).all():
        raise InferenceFailed(f"output {name}: expected finite numbers; was the model made for this precision?")
    return values
