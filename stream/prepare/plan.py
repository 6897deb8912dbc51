"""What a pipeline's batches may hold, worked out once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ingest.contract.codec import HEAD_BYTES, MAX_RECORD_BYTES
from ingest.site import PipelineConfig
from ingest.site.pipeline import MAX_PIXEL_BYTES, UNROUTED_NAME

MAX_ITEMS_BYTES = MAX_RECORD_BYTES - MAX_PIXEL_BYTES - HEAD_BYTES
"""Counted all the same: an item also names the pipelines that its frame goes to, and a site may have any number."""
CHANNELS = 3
UNROUTED_ITEMS = 64
UNROUTED_DELAY_S = 0.05


@dataclass(frozen=True, slots=True)
class PipelinePlan:
    """The limits of one pipeline's batches.

    ``rows`` is how many pictures of ``(height, width, channels)`` a batch holds at most, ``regions`` how many of them
    may come from one frame. ``config`` is None for frames that no pipeline wants.
    """

    name: str
    height: int
    width: int
    channels: int
    max_items: int
    max_delay_s: float
    rows: int
    regions: int
    config: PipelineConfig | None


UNROUTED = PipelinePlan(UNROUTED_NAME, 0, 0, 0, UNROUTED_ITEMS, UNROUTED_DELAY_S, 0, 0, None)
"""Frames that no pipeline wants: they pass as items without pixels, so that they too have an end."""


def plans(pipelines: Iterable[PipelineConfig]) -> tuple[PipelinePlan, ...]:
    """Return a plan per pipeline."""
    return tuple(map(_plan, pipelines))


def _plan(config: PipelineConfig) -> PipelinePlan:
    row_bytes = config.height * config.width * CHANNELS
    fit = max(1, min(config.max_bytes, MAX_PIXEL_BYTES) // row_bytes)
    regions = 1 if config.regions == "full" else min(config.max_regions, fit)
    return PipelinePlan(
        name=config.name,
        height=config.height,
        width=config.width,
        channels=CHANNELS,
        max_items=config.max_items,
        max_delay_s=config.max_delay_s,
        rows=min(fit, config.max_items * regions),
        regions=regions,
        config=config,
    )
