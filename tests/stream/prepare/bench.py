"""The prepare stage on a log in memory, with small frames, for its tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from ingest.contract import headers as h
from ingest.contract.codec import decode, encode
from ingest.contract.records import Batch, BatchItem, Frame
from ingest.contract.topics import BATCHES, DEADLETTER, FRAMES_LATE
from ingest.kafka.log import LogRecord, Outgoing, TopicPartition
from ingest.kafka.memorylog import MemoryLog
from ingest.runtime.clock import ManualClock
from ingest.site import PipelineConfig
from ingest.site.topic.view import Config
from stream.prepare.stage import PrepareStage
from stream.runner.memory import MemoryRunner

WIDTH, HEIGHT = 64, 48
PARTITION = 1
TRACE = h.new_traceparent()


def picture(level: int = 100) -> bytes:
    return cv2.imencode(".jpg", np.full((HEIGHT, WIDTH, 3), level, np.uint8))[1].tobytes()


def frame(seq: int, **values: object) -> Frame:
    fields = {"camera": "gate", "epoch": 1, "seq": seq, "captured_ns": 0, "width": WIDTH, "height": HEIGHT}
    return Frame(**{**fields, "image": picture(), **values})


def pipeline(name: str, **values: object) -> PipelineConfig:
    return PipelineConfig(**{"name": name, "model": "m", "width": 16, "height": 16, "denoise": "none", **values})


FULL = pipeline("full", max_items=4)
MOTION = pipeline("moving", regions="motion", max_items=4)


@dataclass
class PrepareBench:
    """The prepare stage of a site on a log in memory."""

    clock: ManualClock
    log: MemoryLog
    runner: MemoryRunner
    source: str

    @classmethod
    def of(cls, *pipelines: PipelineConfig, lane: Literal["live", "late"] = "live") -> PrepareBench:
        clock = ManualClock()
        log = MemoryLog(3, clock)
        stage = PrepareStage(lane, Config({p.key: p for p in pipelines}), clock)
        return cls(clock, log, MemoryRunner(stage, log, clock), stage.topics[0])

    async def give(self, frame: Frame, **headers: bytes) -> None:
        named = h.frame_headers([frame.id], "late" if self.source == FRAMES_LATE else "live", TRACE)
        await self.give_bytes(encode(frame), {**named, **{k.replace("_", "-"): v for k, v in headers.items()}})

    async def give_bytes(self, value: bytes, headers: dict[str, bytes] | None = None) -> None:
        await self.log.produce(Outgoing(self.source, PARTITION, value, key=b"gate", headers=headers or {}))

    async def batches(self, topic: str = BATCHES) -> list[tuple[LogRecord, Batch]]:
        """Prepare the given frames, advance past the deadline, and return the batches of the same partition."""
        await self.runner.run()
        await self.runner.advance(1.0)
        ends = await self.log.ends(topic)
        assert sum(ends.values()) == ends[PARTITION]
        records = [r async for r in self.log.read(topic, PARTITION, 0, ends[PARTITION])]
        return [(r, decode(Batch, r.value)) for r in records]

    async def items(self) -> list[BatchItem]:
        return [item for _, batch in await self.batches() for item in batch.items]

    async def letters(self) -> list[LogRecord]:
        end = (await self.log.ends(DEADLETTER))[0]
        return [r async for r in self.log.read(DEADLETTER, 0, 0, end)]

    async def committed(self) -> int | None:
        return await self.log.committed(f"prepare-{'late' if self.source == FRAMES_LATE else 'live'}", self.tp)

    @property
    def tp(self) -> TopicPartition:
        return TopicPartition(self.source, PARTITION)
