"""Batch records and jobs for the tests of the node."""

from __future__ import annotations

import numpy as np

from engines.node.jobs import HighWaterMarks, Job, accept
from engines.node.scheduler import MergedBatch
from ingest.contract import headers as h
from ingest.contract.codec import encode
from ingest.contract.identity import LIVE
from ingest.contract.records import Batch, BatchItem, Box, EncodedFrame, Fit, FrameRef, Inner, Region
from ingest.contract.topics import BATCHES, BATCHES_LATE
from ingest.kafka.log import LogRecord, Outgoing, TopicPartition
from ingest.site import PipelineConfig

PIPELINES = frozenset({"regions"})
LIVE_0, LIVE_1, LATE_0 = TopicPartition(BATCHES, 0), TopicPartition(BATCHES, 1), TopicPartition(BATCHES_LATE, 0)


LIGHTER_SPEED = 4
"""Number of batches that the lighter model computes in the time of one batch of the usual model."""


class EvenModels:
    """Facts about models for the scheduler: all pipelines are equal, except for the given ones."""

    def __init__(self, most_rows: int, row_s: float = 0.0, base_s: float = 0.0) -> None:
        self.most_rows, self.row_s, self.base_s = most_rows, row_s, base_s
        self.loading: set[str] = set()
        self.configs: dict[str, PipelineConfig] = {}

    def configure(self, pipeline: str, **settings: object) -> None:
        usual = PipelineConfig(name=pipeline, model="regions", width=64, height=64)
        self.configs[pipeline] = PipelineConfig.model_validate({**usual.model_dump(), **settings})

    def max_rows(self, _: str, *, lighter: bool = False) -> int:
        return self.most_rows

    def is_loading(self, pipeline: str) -> bool:
        return pipeline in self.loading

    def has_lighter(self, pipeline: str) -> bool:
        return bool(self.config(pipeline).lighter)

    def batch_s(self, _: str, rows: int, *, lighter: bool = False) -> float:
        return (self.row_s * rows + self.base_s) / (LIGHTER_SPEED if lighter else 1)

    def config(self, pipeline: str) -> PipelineConfig:
        if pipeline not in self.configs:
            self.configure(pipeline)
        return self.configs[pipeline]


def item(
    seq: int, *, camera: str = "a", rows: int = 1, lane: str = LIVE, reason: str = "", captured_ns: int | None = None
) -> BatchItem:
    region = Region(Box(0, 0, 64, 64), Fit(1, 1, 0, 0), Inner(0, 0, 64, 64))
    return BatchItem(
        camera=camera,
        epoch=7,
        seq=seq,
        lane=lane,
        captured_ns=seq if captured_ns is None else captured_ns,
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


def carrying(frames: list[bytes], *, offset: int = 0, first_seq: int = 0, side: int = 64) -> LogRecord:
    """Return a record whose items carry their encoded frames of ``side`` × ``side`` pixels instead of pixels."""
    items = tuple(
        item(first_seq + n).model_copy(
            update={"attached": EncodedFrame("jpeg", len(frame)), "cropped": False, "width": side, "height": side}
        )
        for n, frame in enumerate(frames)
    )
    batch = Batch(
        pipeline="regions",
        height=64,
        width=64,
        channels=3,
        colour="bgr",
        fit="stretch",
        items=items,
        pixels=b"",
        frames=b"".join(frames),
    )
    headers = h.frame_headers([i.id for i in items], LIVE, pipeline="regions")
    return LogRecord(BATCHES, 0, offset, None, encode(batch), headers)


def job(
    tp: TopicPartition, offset: int, rows: int = 1, pipeline: str = "regions", captured_ns: int | None = None
) -> Job:
    one = item(offset, camera=f"c{tp.partition}", rows=rows, captured_ns=captured_ns)
    return accept(record([one], offset=offset, pipeline=pipeline), HighWaterMarks(), frozenset({pipeline}))


def offsets(merged: MergedBatch | None) -> list[int]:
    return [] if merged is None else [each.record.offset for each in merged.jobs]
