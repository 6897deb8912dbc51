"""What of a camera's pictures is made unrecognisable before anything is stored or sent."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ingest.site.entry import ConfigSection, RelativePoint, Seconds, Share

Polygon = Annotated[tuple[RelativePoint, ...], Field(min_length=3)]
Level = Annotated[int, Field(ge=0, le=255)]
Class = Annotated[int, Field(ge=0)]


class DetectorConfig(ConfigSection):
    """What finds faces or number plates: an ONNX file and how its outputs are read, or a cascade of OpenCV."""

    decoder: Literal["ultraface", "corners", "yolox", "haar"] = "ultraface"
    """``ultraface``: scores and SSD offsets as UltraFace gives them. ``corners``: scores and boxes, decoded inside
    of the graph. ``yolox``: the raw grid. ``haar``: a cascade, the weakest."""
    model: str = ""
    """The ONNX file; for ``haar`` a cascade's file or the name of one that OpenCV brings along, by default those
    for faces from the front and from both sides."""
    width: int = Field(default=320, ge=32, le=4096, multiple_of=32)
    height: int = Field(default=192, ge=32, le=4096, multiple_of=32)
    """What the picture is resized to for the model; for ``haar`` the width alone counts. Larger finds smaller faces,
    misses large ones, and costs more."""
    levels: int = Field(default=1, ge=1, le=4)
    """The model looks at so many sizes, each half of the one before, so that it finds both. 1 for ``haar``."""
    min_score: Share = 0.5
    """What is found with less is left alone; where something was found just before, half of it is enough."""
    classes: tuple[Class, ...] = ()
    """Numbers of the classes to redact, for a model that knows several; empty for all."""
    grow: float = Field(default=0.25, ge=0.0, le=2.0)
    """How far a box is widened on each side, as a share of its size: a detector's box ends at chin and brow."""

    @model_validator(mode="after")
    def _has_a_model(self) -> Self:
        if not self.model and self.decoder != "haar":
            raise ValueError(f'model = "": expected an ONNX file for decoder = "{self.decoder}"')
        return self


class RedactConfig(ConfigSection):
    """Privacy masks, and faces and plates that are made unrecognisable. Nothing is redacted by default."""

    masks: tuple[Polygon, ...] = ()
    """Everything that these outlines enclose is filled, also in what the gate and the detectors see."""
    mask_colour: tuple[Level, Level, Level] = (0, 0, 0)
    """Blue, green, red."""
    faces: DetectorConfig | None = None
    plates: DetectorConfig | None = None
    method: Literal["pixelate", "blur", "fill"] = "pixelate"
    """Only ``fill`` leaves nothing at all: see the privacy section of docs/how-to.md."""
    hold_s: Seconds = 1.0
    """What was found stays redacted where it was for so long after it is not found again."""
