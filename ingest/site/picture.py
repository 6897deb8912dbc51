"""Configuration of the redaction and encoding of a camera's pictures."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ingest.site.entry import ConfigSection, Polygon, Seconds, Share

Level = Annotated[int, Field(ge=0, le=255)]
Class = Annotated[int, Field(ge=0)]


class DetectorConfig(ConfigSection):
    """A detector of faces or number plates: an ONNX file and the decoder of its outputs, or an OpenCV cascade."""

    decoder: Literal["ultraface", "corners", "yolox", "haar"] = "ultraface"
    """Decoder of the model's outputs. ``ultraface`` decodes the scores and SSD box offsets of UltraFace. ``corners``
    reads scores, and boxes that the model outputs as two corners. ``yolox`` decodes the raw output grid of YOLOX.
    ``haar`` runs an OpenCV cascade, which is less accurate than the three neural networks."""
    model: str = ""
    """Path of the model's ONNX file. For ``haar``, a cascade file or the name of a cascade that OpenCV ships. With
    ``haar`` and no name, OpenCV's cascades for faces from the front and from both sides are used."""
    width: int = Field(default=320, ge=32, le=4096, multiple_of=32)
    height: int = Field(default=192, ge=32, le=4096, multiple_of=32)
    """Width and height of the model's input in pixels; ``haar`` uses the width only. With a larger input, the
    detector finds smaller faces, misses large faces, and takes more time."""
    levels: int = Field(default=1, ge=1, le=4)
    """Number of input sizes at which the detector examines a picture, to find both small and large faces. Each input
    size is half of the previous size. With ``haar``, ``levels`` must be 1."""
    min_score: Share = 0.5
    """Minimum score of a detection. At a position where the previous frame had a detection, half of the minimum score
    is enough."""
    classes: tuple[Class, ...] = ()
    """Numbers of the classes to redact, for a model with several classes; empty for all."""
    grow: float = Field(default=0.25, ge=0.0, le=2.0)
    """Margin added to a box on each side, as a share of the box's size. A margin is needed because a detector's box
    of a face ends at the chin and the brow."""

    @model_validator(mode="after")
    def _has_a_model(self) -> Self:
        if not self.model and self.decoder != "haar":
            raise ValueError(
                f'expected the path of an ONNX file in model, because decoder = "{self.decoder}" needs a model'
            )
        return self


class RedactConfig(ConfigSection):
    """Privacy masks, and redaction of faces and number plates. Nothing is redacted by default."""

    masks: tuple[Polygon, ...] = ()
    """Polygons that are filled with ``mask_colour`` before the gate and the detectors process the picture."""
    mask_colour: tuple[Level, Level, Level] = (0, 0, 0)
    """Colour of the masks as ``(blue, green, red)``, each from 0 to 255."""
    faces: DetectorConfig | None = None
    plates: DetectorConfig | None = None
    method: Literal["pixelate", "blur", "fill"] = "pixelate"
    """Method of redaction. A face may stay recognisable after ``pixelate`` or ``blur``, but not after ``fill``: see
    the privacy section of docs/how-to.md."""
    hold_s: Seconds = 1.0
    """Time in seconds for which a box stays redacted after the last detection of its face or number plate."""


class EncodeConfig(ConfigSection):
    """Encoding, quality and size of pictures.

    To keep within a byte budget, the encoder lowers the quality, but not below ``min_quality``, and the picture's
    scale, but not below ``min_scale``. A byte budget of 0 means no limit. While one capture process runs, any ``T``
    seconds have at most ``bytes_per_s`` × (``T`` + ``burst_s``) bytes, and any 24 hours have at most
    ``bytes_per_day`` bytes.
    """

    encoding: Literal["jpeg", "webp"] = "jpeg"
    """A WebP picture is a third to a half smaller than a JPEG of the same ``quality``, and takes about fifteen times
    as long to encode."""
    quality: int = Field(default=85, ge=1, le=100)
    min_quality: int = Field(default=40, ge=1, le=100)
    min_scale: float = Field(default=0.5, ge=0.1, le=1.0)
    """Minimum scale of a picture's width and height. A picture is scaled down only if ``min_quality`` does not save
    enough bytes."""
    bytes_per_s: int = Field(default=0, ge=0)
    bytes_per_day: int = Field(default=0, ge=0)
    burst_s: float = Field(default=2.0, gt=0.0, le=3600.0)
    """Maximum budget that may be saved up and spent at once, as a number of seconds of ``bytes_per_s``."""

    @model_validator(mode="after")
    def _min_quality_is_below_quality(self) -> Self:
        if self.min_quality > self.quality and (self.bytes_per_s or self.bytes_per_day):
            raise ValueError(f"expected min_quality at or below quality = {self.quality}, not {self.min_quality}")
        return self
