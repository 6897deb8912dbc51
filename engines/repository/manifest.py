"""The manifest of a model version: its identity, file hash, input and decoder."""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engines.exceptions import ManifestError
from ingest.contract.records.base import Name
from ingest.runtime.text import decode_text
from ingest.site.pipeline import Precision

MANIFEST = "model.toml"
FORECAST = "forecast"
"""Decoder in the manifest of a forecast model. The stage ``sense`` runs a forecast model, and no engine node can load
it."""
BEHAVIOUR = "behaviour"
"""Decoder in the manifest of a behaviour model. Rules of the stage ``analyse`` run a behaviour model, and no engine
node can load it."""

EMBEDDING = "embedding"
"""Decoder in the manifest of a model of embeddings. A pipeline can use such a model only as a second-stage model."""


class InputSpec(BaseModel):
    """Input of a model: ``(N, height, width, 3)`` uint8. ``pad`` is the grey level around a letterboxed image.

    The input of a forecast model is ``(N, width)`` float32, with the height 1. The input of a behaviour model is
    ``(N, height, width)`` float32: ``height`` samples of ``width`` features.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    width: int = Field(gt=0)
    height: int = Field(gt=0)
    colour: Literal["bgr", "rgb"] = "bgr"
    fit: Literal["stretch", "letterbox", "crop"] = "stretch"
    pad: int = Field(default=114, ge=0, le=255)


class Decoding(BaseModel):
    """How a decoder merges overlapping boxes (``max_overlap``, ``across_classes``), and settings of this decoder
    only.

    Two boxes whose intersection over union exceeds ``max_overlap`` count as one object. Boxes of different classes
    are merged only if ``across_classes`` is true.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_overlap: float = Field(default=0.45, ge=0.0, le=1.0)
    across_classes: bool = False
    settings: dict[str, Any] = {}


class Manifest(BaseModel):
    """Contents of ``model.toml``. Only commands read ``training`` and ``origin``; services do not."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    version: int = Field(ge=1)
    file: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    decoder: str
    labels: tuple[str, ...] = Field(min_length=1)
    max_batch: int = Field(default=32, ge=1)
    precision: Precision = "fp32"
    """Lowest precision in which the model may be computed. int8 is for a file with quantise and dequantise nodes."""
    input: InputSpec
    decoding: Decoding = Decoding()
    training: dict[str, Any] = {}
    origin: dict[str, Any] = {}

    @property
    def id(self) -> str:
        """Identity of the model version in results: ``name@version``."""
        return f"{self.name}@{self.version}"

    @property
    def for_engines(self) -> bool:
        """Whether an engine node can load the model."""
        return self.decoder not in (FORECAST, BEHAVIOUR)

    @property
    def finds_objects(self) -> bool:
        """Whether the model can be a pipeline's own model, which finds or labels objects."""
        return self.for_engines and self.decoder != EMBEDDING


@dataclass(frozen=True, slots=True)
class Model:
    """Model version on disk, verified against its manifest."""

    manifest: Manifest
    folder: Path

    @property
    def path(self) -> Path:
        """Path of the model file."""
        return self.folder / self.manifest.file

    def at_precision(self, precision: Precision | None) -> Model:
        """Return the model with a precision that replaces the precision in the manifest. If ``precision`` is None,
        the model keeps the precision of its manifest."""
        return (
            replace(self, manifest=self.manifest.model_copy(update={"precision": precision})) if precision else self
        )


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest in a model version's folder. Raise ManifestError that names the file and the invalid key."""
    path = folder / MANIFEST
    try:
        return Manifest.model_validate(tomllib.loads(decode_text(path.read_bytes())))
    except OSError as error:
        raise ManifestError(f"manifest {path}: {error.strerror}: expected a readable file") from None
    except ValidationError as error:
        first = error.errors()[0]
        raise ManifestError(f"manifest {path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except ValueError as error:  # an error of decode_text, or TOMLDecodeError
        raise ManifestError(f"manifest {path}: {error}: expected valid TOML") from None


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
