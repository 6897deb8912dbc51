"""A pipeline of a site: how frames are prepared for one model."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from ingest.contract.codec import MAX_RECORD_BYTES
from ingest.contract.records.base import Name
from ingest.site.entry import Seconds, Share, SharedEntry

MAX_PIXEL_BYTES = MAX_RECORD_BYTES - 1024 * 1024
"""The rest of a batch's record is for its items: 64 of them with 64 regions each need less than half a MiB, and
with as much that moves and rests as is passed on, just fit."""
UNROUTED_NAME = "none"
"""Of the batches of frames that no pipeline wants."""
_CHANNELS = 3


class PipelineConfig(SharedEntry):
    """How frames are prepared for one model, and which cameras it looks at."""

    KIND: ClassVar[str] = "pipeline"

    model: str
    """Name of the model in the repository; the node serves its promoted version."""
    width: int = Field(gt=0)
    height: int = Field(gt=0)
    colour: Literal["bgr", "rgb"] = "bgr"
    fit: Literal["stretch", "letterbox"] = "stretch"
    regions: Literal["full", "motion"] = "full"
    """Classify the whole frame, or each region that moved."""
    region_margin: Share = 0.15
    """How far a region is widened on each side, as a share of its size."""
    max_regions: int = Field(default=8, ge=1, le=64)
    denoise: Literal["none", "median", "auto"] = "auto"
    max_items: int = Field(default=8, ge=1, le=64)
    max_delay_s: Seconds = 0.05
    max_bytes: int = Field(default=6 * 1024 * 1024, ge=64 * 1024)
    freshness_s: Seconds = 0.0
    """Live frames older than this when they are prepared are shed as stale; 0 for never."""
    min_score: Share = 0.3
    cameras: tuple[Name, ...] = ()
    """Empty for all."""

    @model_validator(mode="after")
    def _can_be_carried(self) -> Self:
        if self.name == UNROUTED_NAME:
            raise ValueError(f"name = {self.name!r}: expected another name, this one is for unrouted frames")
        if self.width * self.height * _CHANNELS > MAX_PIXEL_BYTES:
            raise ValueError(f"{self.width}×{self.height}: expected at most {MAX_PIXEL_BYTES} bytes per picture")
        return self

    def wants(self, camera: str) -> bool:
        """Tell whether this pipeline looks at a camera's frames."""
        return not self.cameras or camera in self.cameras
