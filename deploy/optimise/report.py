"""Report of an optimisation: each optimised version, its quality, its speed, and whether the version was stored."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from engines.optimise.int8 import Form
from engines.optimise.judge import Quality
from ingest.site.pipeline import Precision


class PruneFacts(BaseModel):
    """How a model was pruned. ``weights_before`` and ``weights_after`` count the weights. ``zeros`` is the share of
    weights that are zero."""

    model_config = ConfigDict(frozen=True)

    by: Literal["channels", "weights"]
    share: float
    weights_before: int
    weights_after: int
    zeros: float
    epochs: int


class SpeedRow(BaseModel):
    """Median latency of one batch on one backend, of the original and of the optimised model.

    ``runs`` is the number of timed batches of each model.
    """

    model_config = ConfigDict(frozen=True)

    backend: str
    batch: int
    original_ms: float
    optimised_ms: float
    speedup: float
    runs: int


class OptimisedVersion(BaseModel):
    """One optimised version. ``model`` is the identity of the version in the repository, or empty if the version was
    refused.

    All sizes are sizes of the model file. The ``packed`` sizes are measured after compression with zlib, which
    shrinks a model with many zero weights.
    """

    precision: Precision
    form: Form | None
    model: str
    refused: str
    original_bytes: int
    optimised_bytes: int
    original_packed_bytes: int
    optimised_packed_bytes: int
    quality: Quality
    speed: tuple[SpeedRow, ...]
    notes: tuple[str, ...]


class OptimiseReport(BaseModel):
    """Result of `sightline models optimise`."""

    original: str
    calibration_pictures: int
    test_pictures: int
    max_loss: float
    pruned: PruneFacts | None
    versions: tuple[OptimisedVersion, ...]
