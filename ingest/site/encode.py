"""How a camera's pictures are encoded, and how many bytes they may be."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from ingest.site.entry import ConfigSection


class EncodeConfig(ConfigSection):
    """Encoding, quality and size. With a budget these are the best, and ``min_quality`` and ``min_scale`` the floor.

    A budget of 0 is none. Within one run of a capture a budget is kept over every window: in any ``T`` seconds at
    most ``bytes_per_s`` × (``T`` + ``burst_s``), in any 24 hours at most ``bytes_per_day``.
    """

    encoding: Literal["jpeg", "webp"] = "jpeg"
    """WebP is a third to a half smaller at the same number, and takes about fifteen times as long to make."""
    quality: int = Field(default=85, ge=1, le=100)
    min_quality: int = Field(default=40, ge=1, le=100)
    min_scale: float = Field(default=0.5, ge=0.1, le=1.0)
    """The smallest share of the width and height that a picture is scaled to when quality is at its floor."""
    bytes_per_s: int = Field(default=0, ge=0)
    bytes_per_day: int = Field(default=0, ge=0)
    burst_s: float = Field(default=2.0, gt=0.0, le=3600.0)
    """So many seconds' worth of ``bytes_per_s`` may be saved up and spent at once."""

    @model_validator(mode="after")
    def _the_floor_is_below(self) -> Self:
        if self.min_quality > self.quality and self.has_budget:
            raise ValueError(f"min_quality = {self.min_quality}: expected at most quality, {self.quality}")
        return self

    @property
    def has_budget(self) -> bool:
        """Tell whether there is a bound at all."""
        return bool(self.bytes_per_s or self.bytes_per_day)
