"""Redaction and encoding of a camera's pictures."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ingest.site.entry import ConfigSection, Polygon, Seconds, Share

Level = Annotated[int, Field(ge=0, le=255)]
Class = Annotated[int, Field(ge=0)]


class DetectorConfig(ConfigSection):
    """A detector of faces or number plates: an ONNX file and the decoder of its outputs, or an OpenCV cascade."""

    decoder: Literal["ultraface", "corners", "yolox", "haar"] = "ultraface"
    """``ultraface``: scores and SSD offsets as UltraFace outputs them. ``corners``: scores and boxes that the model
    itself decodes. ``yolox``: the raw output grid of YOLOX. ``haar``: an OpenCV cascade, the least accurate."""
    model: str = ""
    """The ONNX file. For ``haar``, a cascade file or the name of a cascade that OpenCV ships; by default the cascades
    for faces from the front and from both sides."""
    width: int = Field(default=320, ge=32, le=4096, multiple_of=32)
    height: int = Field(default=192, ge=32, le=4096, multiple_of=32)
    """Size of the model's input; ``haar`` uses the width only. A larger size finds smaller faces, misses large ones,
    and costs more."""
    levels: int = Field(default=1, ge=1, le=4)
    """Number of input sizes, each half of the previous size, to find both small and large faces. Must be 1 for
    ``haar``."""
    min_score: Share = 0.5
    """Minimum score of a detection. Half of this score is enough where the previous frame had a detection."""
    classes: tuple[Class, ...] = ()
    """Numbers of the classes to redact, for a model with several classes; empty for all."""
    grow: float = Field(default=0.25, ge=0.0, le=2.0)
    """Margin added to a box on each side, as a share of its size: a detector's box ends at chin and brow."""

    @model_validator(mode="after")
    def _has_a_model(self) -> Self:
        if not self.model and self.decoder != "haar":
            raise ValueError(f'expected an ONNX file as model for decoder = "{self.decoder}"')
        return self


class RedactConfig(ConfigSection):
    """Privacy masks, and redaction of faces and number plates. Nothing is redacted by default."""

    masks: tuple[Polygon, ...] = ()
    """Polygons that are filled with ``mask_colour`` before the gate and the detectors process the picture."""
    mask_colour: tuple[Level, Level, Level] = (0, 0, 0)
    """Blue, green, red."""
    faces: DetectorConfig | None = None
    plates: DetectorConfig | None = None
    method: Literal["pixelate", "blur", "fill"] = "pixelate"
    """Method of redaction. Only ``fill`` leaves nothing to recognise: see the privacy section of docs/how-to.md."""
    hold_s: Seconds = 1.0
    """Time for which a box stays redacted after its last detection."""


class EncodeConfig(ConfigSection):
    """Encoding, quality and size of pictures.

    With a byte budget, ``quality`` is the best quality, and ``min_quality`` and ``min_scale`` are the lower limits. A
    budget of 0 means no limit. Within one run of a capture, the budget holds over every time window: any ``T``
    seconds have at most ``bytes_per_s`` × (``T`` + ``burst_s``) bytes, and any 24 hours at most ``bytes_per_day``.
    """

    encoding: Literal["jpeg", "webp"] = "jpeg"
    """WebP is a third to a half smaller at the same ``quality``, and takes about fifteen times as long to encode."""
    quality: int = Field(default=85, ge=1, le=100)
    min_quality: int = Field(default=40, ge=1, le=100)
    min_scale: float = Field(default=0.5, ge=0.1, le=1.0)
    """Smallest scale of width and height, used when the quality is at its lower limit."""
    bytes_per_s: int = Field(default=0, ge=0)
    bytes_per_day: int = Field(default=0, ge=0)
    burst_s: float = Field(default=2.0, gt=0.0, le=3600.0)
    """Seconds of ``bytes_per_s`` that may be saved up and spent at once."""

    @model_validator(mode="after")
    def _min_quality_is_below_quality(self) -> Self:
        if self.min_quality > self.quality and (self.bytes_per_s or self.bytes_per_day):
            raise ValueError(f"expected min_quality of at most quality = {self.quality}, not {self.min_quality}")
        return self
