"""Records about a foreign model: settings that the user fixed, inspected facts, and the origin of each setting."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from engines.repository.inspection import FileFacts, TensorInfo
from engines.repository.wrap import Triple

Colour = Literal["bgr", "rgb"]
FitName = Literal["stretch", "letterbox", "crop"]
Source = Literal["option", "file", "assumed"]
"""Origin of a setting: ``option`` (the user), ``file`` (stated in the file, or measured by running the model), or
``assumed`` (usual for similar models)."""


class Overrides(BaseModel):
    """Settings that the user fixed. Settings that are empty or None are read from the file, or assumed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    decoder: str = ""
    labels: tuple[str, ...] = ()
    colour: Colour | None = None
    fit: FitName | None = None
    mean: Triple | None = None
    scale: Triple | None = None
    output: str = ""
    decoding: dict[str, Any] = {}
    """Settings of the decoder by name, as in ``[decoding]`` of the manifest."""
    size: tuple[int, int] | None = None
    """Width and height of the input in px, for a model that accepts any size."""


class ConvertedFrom(BaseModel):
    """The file of another format that an ONNX file was converted from.

    ``largest_difference`` of the outputs is relative to the largest output. A file that is ``kept`` is stored beside
    the model, for later fine-tuning.
    """

    model_config = ConfigDict(frozen=True)

    file: Path
    sha256: str
    converter: str
    largest_difference: float
    kept: bool


class Setting(BaseModel):
    """A setting of a model, and the origin of the setting.

    ``source`` is ``option`` if the user gave the setting, ``file`` if the file states the setting or a run of the
    model shows it, and ``assumed`` if the setting is only usual for similar models.
    """

    model_config = ConfigDict(frozen=True)

    key: str
    value: Any
    source: Source
    reason: str


class ModelReport(BaseModel):
    """Result of an inspection. ``model`` is the identity of the stored version, or empty if no version was stored."""

    file: str
    sha256: str
    facts: FileFacts
    layout: Literal["nchw", "nhwc"]
    settings: tuple[Setting, ...]
    outputs: tuple[TensorInfo, ...] = Field(description="Outputs on images of noise, with their ranges.")
    rejected: tuple[str, ...] = ()
    """Decoders that expect outputs of the model's shapes but were refused, each with the reason."""
    max_batch: int = 0
    model: str = ""

    def assumed(self) -> tuple[Setting, ...]:
        """Return the settings that are assumed because nothing in the file shows them."""
        return tuple(setting for setting in self.settings if setting.source == "assumed")
