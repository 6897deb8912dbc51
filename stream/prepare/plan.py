"""The limits of the batches of each pipeline."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ingest.contract.codec import HEAD_BYTES, MAX_RECORD_BYTES
from ingest.site import PipelineConfig
from ingest.site.pipeline import MAX_PIXEL_BYTES, UNROUTED_NAME

MAX_ITEMS_BYTES = MAX_RECORD_BYTES - MAX_PIXEL_BYTES - HEAD_BYTES
"""Maximum bytes of the items in a batch: the rest of a record beside the pixels. Items are small, but their size has
no bound: an item names all pipelines of its frame, and a site may have any number."""
CHANNELS = 3
UNROUTED_ITEMS = 64
"""Items in a batch of frames that no pipeline wants."""
UNROUTED_DELAY_S = 0.05
"""Maximum time that such a batch stays open."""


@dataclass(frozen=True, slots=True)
class PipelinePlan:
    """The limits of the batches of one pipeline.

    ``rows`` is the maximum number of pictures of ``(height, width, channels)`` in a batch, ``regions`` the maximum
    number of them from one frame. ``config`` is None for frames that no pipeline wants.
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
"""Limits for frames that no pipeline wants. They travel as items without pixels, so that the ledger gets their
end."""


def plans(pipelines: Iterable[PipelineConfig]) -> tuple[PipelinePlan, ...]:
    """Return one plan for each pipeline."""
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
