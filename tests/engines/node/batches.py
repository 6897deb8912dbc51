"""Batch records for the tests of the node."""

from __future__ import annotations

import numpy as np

from ingest.contract import headers as h
from ingest.contract.codec import encode
from ingest.contract.identity import LIVE
from ingest.contract.records import Batch, BatchItem, Box, Fit, FrameRef, Inner, Region
from ingest.contract.topics import BATCHES
from ingest.kafka.log import LogRecord, Outgoing

PIPELINES = frozenset({"regions"})


def item(seq: int, *, camera: str = "a", rows: int = 1, lane: str = LIVE, reason: str = "") -> BatchItem:
    region = Region(Box(0, 0, 64, 64), Fit(1, 1, 0, 0), Inner(0, 0, 64, 64))
    return BatchItem(
        camera=camera,
        epoch=7,
        seq=seq,
        lane=lane,
        captured_ns=seq,
        width=64,
        height=64,
        source=FrameRef("frames", 0, seq),
        pipelines=("regions",),
        outcome="classify" if rows else ("shed" if reason else "empty"),
        reason=reason,
        regions=(region,) * rows,
    )


def record(
    items: list[BatchItem], *, offset: int = 0, first_pixel: int = 1, lane: str = "", pipeline: str = "regions"
) -> LogRecord:
    count = sum(len(i.regions) for i in items)
    pixels = np.full((count, 64, 64, 3), first_pixel, np.uint8).tobytes()
    batch = Batch(pipeline=pipeline, height=64, width=64, channels=3, items=tuple(items), pixels=pixels)
    headers = h.frame_headers([i.id for i in items], lane or items[0].lane, pipeline=pipeline)
    return LogRecord(BATCHES, 0, offset, None, encode(batch), headers)


def failure_of(letter: Outgoing) -> h.Failure:
    failure = h.read_failure(letter.headers)
    assert failure is not None
    return failure
