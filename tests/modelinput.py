"""The input of a model, filled from a batch as an engine node fills it."""

from __future__ import annotations

import numpy as np

from engines.node.jobs import ItemTask
from ingest.contract.records import Batch, Pixels, padded_place


def model_input(batch: Batch, pad: int = 0) -> Pixels:
    """Return a uint8 array ``(N, height, width, channels)`` with one row per region."""
    parts = zip(batch.items, batch.pictures(), batch.attached_frames(), strict=True)
    tasks = [ItemTask(item, batch.preparation, images, frame) for item, images, frame in parts]
    regions = [region for item in batch.items for region in item.regions]
    rows = np.empty((len(regions), *batch.canvas), np.uint8)
    fills = (fill for task in tasks for fill in task.fills(batch.colour, keep=False))
    for row, region, fill in zip(rows, regions, fills, strict=True):
        fill(padded_place(row, pad, region.inner))
    assert [task.error for task in tasks if task.error] == []
    return rows
