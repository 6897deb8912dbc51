"""Batches with encoded frames, and a cascade with fake engines, for the tests of cascades."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
from prometheus_client import CollectorRegistry

from engines.backends.fake import FakeEngine
from engines.metrics import NodeMetrics
from engines.node.cascade import Cascade
from engines.node.jobs import HighWaterMarks, Job, accept, results
from engines.node.scheduler import MergedBatch
from engines.node.serving import SecondModel, ServedModel
from engines.repository.store import Repository
from ingest.contract.codec import decode, encode
from ingest.contract.records import Batch, Detection, EncodedFrame, Result
from ingest.contract.topics import RESULTS
from ingest.kafka.log import LogRecord
from ingest.site import PipelineConfig, SecondModelConfig
from tests.engines.node.batches import PIPELINES, item, record
from tests.paths import MODELS

TYPE = SecondModelConfig(name="type", model="regions")
BUS, CAR = 3, 1
"""Grey levels for which the fake engine answers bus and car."""


def jpeg(level: int = BUS, width: int = 64, height: int = 64) -> bytes:
    picture = np.full((height, width, 3), level, np.uint8)
    return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()


def with_frames(*frames: bytes, offset: int = 0, first_seq: int = 0) -> LogRecord:
    """Return a record with one car per item. An empty frame stands for an item without an encoded frame."""
    plain = record([item(first_seq + n) for n in range(len(frames))], offset=offset)
    batch = decode(Batch, plain.value)
    items = tuple(
        one.model_copy(update={"attached": EncodedFrame("jpeg", len(frame)) if frame else None})
        for one, frame in zip(batch.items, frames, strict=True)
    )
    return replace(plain, value=encode(batch.model_copy(update={"items": items, "frames": b"".join(frames)})))


def merged(*records: LogRecord) -> tuple[MergedBatch, list[Job]]:
    jobs = [accept(one, HighWaterMarks(), PIPELINES) for one in records]
    return MergedBatch("regions", [task for job in jobs for task in job.tasks.values()], jobs), jobs


def found(jobs: Sequence[Job]) -> list[Detection]:
    """Return the detections in the results of jobs."""
    written = [outgoing for job in jobs for outgoing in results(job, 0)]
    assert {outgoing.topic for outgoing in written} == {RESULTS}
    return [one for outgoing in written for one in decode(Result, outgoing.value).detections]


def first_model() -> ServedModel:
    pipeline = PipelineConfig(name="regions", model="regions", width=64, height=64)
    served = ServedModel(pipeline, Repository(MODELS).open("regions"), FakeEngine())
    served.open()
    return served


def second_model(engine: FakeEngine | None = None, config: SecondModelConfig = TYPE) -> SecondModel:
    second = SecondModel(config, Repository(MODELS).open("regions"), engine or FakeEngine())
    second.open()
    return second


class Rig:
    """A cascade of the shipped model with fake engines, and its metrics."""

    def __init__(self, *seconds: tuple[SecondModelConfig, SecondModel | None]) -> None:
        self.registry = CollectorRegistry()
        self.cascade = Cascade("regions", first_model(), seconds, NodeMetrics(self.registry))

    def count(self, outcome: str) -> float:
        labels = {"pipeline": "regions", "attribute": "type", "outcome": outcome}
        return self.registry.get_sample_value("sightline_engine_attributes_total", labels) or 0.0

    def classify(self, *records: LogRecord) -> list[Detection]:
        batch, jobs = merged(*records)
        self.cascade.classify(batch)
        return found(jobs)
