"""The OutputDecoder interface, which turns the outputs of a model into detections."""

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
    """The region of a frame that one row of a batch shows, and the size of that frame in px."""

    region: Region
    frame_width: int
    frame_height: int

    @classmethod
    def whole(cls, width: int, height: int) -> FrameRegion:
        """Return the region that covers a whole frame. The frame has the size of a model's input in px."""
        size = (width, height)
        return cls(Region(Box(0, 0, *size), Fit(1.0, 1.0, 0.0, 0.0), Inner(0, 0, *size)), *size)


@dataclass(frozen=True, slots=True)
class DecoderOptions:
    """Settings of a decoder, taken from its model and pipeline. Input sizes are in px."""

    labels: tuple[str, ...]
    input_width: int
    input_height: int
    min_score: float = 0.3
    max_overlap: float = 0.45
    """Maximum intersection over union of two objects of one class. Boxes with a larger overlap show the same
    object."""
    across_classes: bool = False
    """Whether boxes of different classes that overlap by more than ``max_overlap`` show the same object, too."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the decoder itself, such as the prior boxes of an SSD."""

    @classmethod
    def of(cls, manifest: Manifest, min_score: float = 0.3) -> DecoderOptions:
        """Return the options of a model for a pipeline with the minimum score ``min_score``."""
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
    """A decoder of a model's output arrays. Decoders are pure, and may be called from any thread."""

    def decode(self, outputs: Outputs, rows: Sequence[FrameRegion]) -> list[list[Detection]]:
        """Return the detections of each row, highest score first. Boxes are in frame px, clipped to the frame.

        Raise InferenceFailed if an array does not have the shape that this decoder reads, or holds numbers that are
        not finite.
        """


@runtime_checkable
class JudgesOutputs(Protocol):
    """An optional interface of decoders, to recognise outputs that have the right shape but another meaning."""

    def misfit(self, outputs: Outputs) -> str:
        """Return why this decoder cannot read the outputs, and the next step. Return "" if the decoder can read them.

        ``outputs`` have passed ``decode``, and come from a batch of several different images.
        """


@runtime_checkable
class StatesUnprovenSettings(Protocol):
    """An optional interface of decoders with settings that outputs without objects neither prove nor refute."""

    def unproven(self, outputs: Outputs) -> dict[str, Any]:
        """Return all settings of the decoder if these outputs prove none of them, else an empty dictionary.

        ``outputs`` have passed ``decode`` and ``misfit``.
        """


def refusal(decoder: OutputDecoder, outputs: Outputs, rows: Sequence[FrameRegion]) -> str:
    """Return why a decoder cannot read a model's outputs, or "" if the decoder can.

    Adoption calls this function before a model is stored.
    """
    try:
        decoder.decode(outputs, rows)
    except InferenceFailed as error:
        return str(error)
    return decoder.misfit(outputs) if isinstance(decoder, JudgesOutputs) else ""


def clipped(box: Box, row: FrameRegion) -> Box | None:
    """Return a box clipped to the row's frame; None if the box lies outside of the frame."""
    cut = box.clipped(row.frame_width, row.frame_height)
    return cut if cut.width > 0 and cut.height > 0 else None


def only_output(outputs: Outputs, shape: tuple[int | str, ...]) -> npt.NDArray[np.float32]:
    """Return the first output of a model. A word in ``shape`` stands for any dimension.

    Raise InferenceFailed if the shape differs or a number is not finite.
    """
    if not outputs:
        raise InferenceFailed("the model has no output: expected one array")
    name, values = next(iter(outputs.items()))
    if not fits(values.shape, shape):
        raise InferenceFailed(
            f"output {name} has shape {values.shape}: expected {_text(shape)} for this input size and these labels"
        )
    require_finite(name, values)
    return values


def fits(found: tuple[int, ...], wanted: tuple[int | str, ...]) -> bool:
    """Return whether a shape is the wanted one. A word in ``wanted`` stands for any dimension."""
    return len(found) == len(wanted) and all(
        isinstance(want, str) or have == want for have, want in zip(found, wanted, strict=True)
    )


def require_finite(name: str, values: npt.NDArray[np.float32]) -> None:
    """Raise InferenceFailed if an output has NaN or infinity."""
    if not np.isfinite(values).all():
        raise InferenceFailed(
            f"output {name} has NaN or infinity: expected finite numbers. Check the model's precision."
        )


def _text(shape: tuple[int | str, ...]) -> str:
    return f"({', '.join(map(str, shape))}{',' * (len(shape) == 1)})"
