"""What a pipeline's batches may hold, worked out once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ingest.batchcodec import HEAD_BYTES
from ingest.codec import MAX_RECORD_BYTES
from ingest.exceptions import ConfigError
from ingest.site import PipelineConfig

__all__ = ["MAX_ITEMS_BYTES", "MAX_PIXEL_BYTES", "UNROUTED", "Plan", "plans"]

MAX_PIXEL_BYTES = MAX_RECORD_BYTES - 1024 * 1024
"""The rest of a batch's record is for its items: 64 of them with 64 regions each need less than half a MiB."""
MAX_ITEMS_BYTES = MAX_RECORD_BYTES - MAX_PIXEL_BYTES - HEAD_BYTES
"""Counted all the same: an item also names the pipelines that its frame goes to, and a site may have any number."""
CHANNELS = 3
UNROUTED_ITEMS = 64
UNROUTED_DELAY_S = 0.05


@dataclass(frozen=True, slots=True)
class Plan:
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


UNROUTED = Plan("none", 0, 0, 0, UNROUTED_ITEMS, UNROUTED_DELAY_S, 0, 0, None)
"""Frames that no pipeline wants: they pass as items without pixels, so that they too have an end."""


def plans(pipelines: Iterable[PipelineConfig]) -> tuple[Plan, ...]:
    """Return a plan per pipeline. Raise ConfigError for one whose pictures or name cannot be carried."""
    return tuple(map(_plan, pipelines))


def _plan(config: PipelineConfig) -> Plan:
    if config.name == UNROUTED.name:
        raise ConfigError("config topic", config.key, config.name, "another name: this one is for unrouted frames")
    row_bytes = config.height * config.width * CHANNELS
    if row_bytes > MAX_PIXEL_BYTES:
        size = f"{config.width}×{config.height}"
        raise ConfigError("config topic", config.key, size, f"at most {MAX_PIXEL_BYTES} bytes per picture")
    fit = max(1, min(config.max_bytes, MAX_PIXEL_BYTES) // row_bytes)
    regions = 1 if config.regions == "full" else min(config.max_regions, fit)
    return Plan(
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
