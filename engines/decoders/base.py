"""The OutputDecoder interface. A decoder turns the output arrays of a model into detections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from engines.engine import Outputs
from engines.exceptions import InferenceFailed
from engines.repository.manifest import Manifest
from ingest.contract.records import Box, Detection, Fit, Inner, Region


class FrameRegion(NamedTuple):
    """Source of one image of a batch: the frame region that the image shows, and the frame's size in px.

    If the lens distortion of a frame is corrected, the region is in px of the undistorted frame, which has the size
    of the frame.
    """

    region: Region
    frame_width: int
    frame_height: int

    @classmethod
    def whole(cls, width: int, height: int) -> FrameRegion:
        """Return the region that covers a whole frame of the size ``width`` × ``height`` in px."""
        size = (width, height)
        return cls(Region(Box(0, 0, *size), Fit(1.0, 1.0, 0.0, 0.0), Inner(0, 0, *size)), *size)


@dataclass(frozen=True, slots=True)
class DecoderOptions:
    """Options of a decoder, from its model's manifest and from the pipeline.

    ``input_width`` and ``input_height`` are in px.
    """

    labels: tuple[str, ...]
    input_width: int
    input_height: int
    min_score: float = 0.3
    max_overlap: float = 0.45
    """Maximum intersection over union of the boxes of two objects of one class. Two boxes with a larger overlap count
    as the same object."""
    across_classes: bool = False
    """Whether ``max_overlap`` also applies to two boxes of different classes."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings that only this decoder has, such as the prior boxes of an SSD."""

    @classmethod
    def of(cls, manifest: Manifest, min_score: float = 0.3) -> DecoderOptions:
        """Return the decoder options from a model's manifest, with the minimum score ``min_score`` of a pipeline."""
        spec, decoding = manifest.input, manifest.decoding
        return cls(
            manifest.labels,
            spec.width,
            spec.height,
            min_score,
            decoding.max_overlap,
            decoding.across_classes,
            decoding.settings,
        )


class OutputDecoder(Protocol):
    """A decoder of a model's output arrays. Decoders have no side effects, and any thread may call a decoder."""

    def decode(self, outputs: Outputs, rows: Sequence[FrameRegion]) -> list[list[Detection]]:
        """Return the detections of each image, highest score first.

        Boxes are in px of the frame, or of the undistorted frame if the regions are, and clipped to it. The engine
        node maps boxes of an undistorted frame back.

        Raise InferenceFailed if an output does not have the shape that this decoder reads, or has NaN or infinity.
        """


@runtime_checkable
class JudgesOutputs(Protocol):
    """An optional interface of decoders that can recognise outputs of the right shape but with another meaning."""

    def misfit(self, outputs: Outputs) -> str:
        """Return why this decoder cannot read the outputs, and what the user can do.

        Return "" if the decoder can read the outputs.

        The caller must call ``decode`` with ``outputs`` before this method. ``outputs`` must belong to a batch of
        several different images.
        """


@runtime_checkable
class StatesUnprovenSettings(Protocol):
    """An optional interface of decoders with settings that only outputs with objects can confirm."""

    def unproven(self, outputs: Outputs) -> dict[str, Any]:
        """Return the decoder's settings if the outputs have no object that could confirm the settings.

        Return an empty dictionary if the outputs have objects. The caller must call ``decode`` and ``misfit`` with
        ``outputs`` before this method.
        """


def refusal(decoder: OutputDecoder, outputs: Outputs, rows: Sequence[FrameRegion]) -> str:
    """Return the reason why a decoder cannot read a model's outputs, or "" if the decoder can read the outputs.

    The command that adds a model to the repository calls this function before it stores the model.
    """
    try:
        decoder.decode(outputs, rows)
    except InferenceFailed as error:
        return str(error)
    return decoder.misfit(outputs) if isinstance(decoder, JudgesOutputs) else ""


def clipped(box: Box, row: FrameRegion) -> Box | None:
    """Return a box clipped to the frame of ``row``, or None if the box lies outside of the frame."""
    cut = box.clipped(row.frame_width, row.frame_height)
    return cut if cut.width > 0 and cut.height > 0 else None


def only_output(outputs: Outputs, shape: tuple[int | str, ...]) -> npt.NDArray[np.float32]:
    """Return the first output of a model. In ``shape``, a text such as ``"K"`` accepts a dimension of any size.

    Raise InferenceFailed if the output does not have the given shape, or has NaN or infinity.
    """
    if not outputs:
        raise InferenceFailed("the model has no output: expected one output array")
    name, values = next(iter(outputs.items()))
    if not fits(values.shape, shape):
        raise InferenceFailed(
            f"model output {name} has shape {values.shape}: expected {_text(shape)}, which follows from the "
            "manifest's input size and labels"
        )
    require_finite(name, values)
    return values


def fits(found: tuple[int, ...], wanted: tuple[int | str, ...]) -> bool:
    """Return whether the shape ``found`` matches ``wanted``.

    In ``wanted``, a text such as ``"K"`` accepts a dimension of any size.
    """
    return len(found) == len(wanted) and all(
        isinstance(want, str) or have == want for have, want in zip(found, wanted, strict=True)
    )


def require_finite(name: str, values: npt.NDArray[np.float32]) -> None:
    """Raise InferenceFailed if an output has NaN or infinity."""
    if not np.isfinite(values).all():
        raise InferenceFailed(
            f"model output {name} has NaN or infinity: expected finite numbers. Check the model's precision."
        )


def _text(shape: tuple[int | str, ...]) -> str:
    return f"({', '.join(map(str, shape))}{',' * (len(shape) == 1)})"
