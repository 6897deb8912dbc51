"""Records of an optimisation: what was made, how good and how fast it is, and whether it was stored."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from engines.optimise.int8 import Form
from engines.optimise.judge import Quality
from ingest.site.pipeline import Precision


class PruneFacts(BaseModel):
    """How a model was pruned. ``weights`` are numbers of weights; ``zeros`` is the share of those that are zero."""

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
    """One optimised version. ``model`` is its identity in the repository, or empty if it was refused.

    Sizes are those of the model file. ``packed`` is the size after compression with zlib, which shows zeros.
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
