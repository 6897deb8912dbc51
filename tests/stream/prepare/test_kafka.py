"""Tests of the prepare command on a real Kafka: frames become batches or dead letters, also after a kill."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator

import cv2
import numpy as np
import pytest

from ingest.contract import headers as h
from ingest.contract.codec import decode, encode
from ingest.contract.identity import FrameId
from ingest.contract.records import Batch, Frame
from ingest.contract.topics import BATCHES, CONFIG, DEADLETTER, FRAMES
from ingest.kafka import topicadmin
from ingest.kafka.kafkalog import KafkaLog
from ingest.kafka.log import Outgoing, TopicPartition
from ingest.kafka.settings import KafkaSettings
from ingest.runtime.clock import Deadline
from ingest.site import PipelineConfig
from ingest.site.topic.store import publish

pytestmark = pytest.mark.kafka

PATIENCE_S = 60.0
COMMAND = "import typer; from deploy.cli.services.stream import prepare; typer.run(prepare)"
CAMERAS = {"gate": 0, "yard": 1}
EVERY_BAD = 7
"""Distance between two truncated pictures: every seventh picture is truncated."""


class Worker:
    """The prepare command as a process."""

    def __init__(self, settings: KafkaSettings) -> None:
        self.env = {**os.environ, **settings.to_env()}
        self.process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        command = [sys.executable, "-c", COMMAND, "--lane", "live", "--instance", "one"]
        self.process = await asyncio.to_thread(subprocess.Popen, command, env=self.env)

    async def kill(self) -> None:
        if self.process:
            self.process.kill()
            await asyncio.to_thread(self.process.wait)

    async def stop(self) -> int:
        assert self.process
        self.process.terminate()
        return await asyncio.to_thread(self.process.wait, PATIENCE_S)


@pytest.fixture
async def log(kafka: str, prefix: str) -> AsyncIterator[KafkaLog]:
    settings = KafkaSettings(bootstrap=kafka, prefix=prefix)
    await topicadmin.create(settings, len(CAMERAS))
    async with KafkaLog(settings, "test") as log:
        yield log
    await topicadmin.remove(settings, prefix)


@pytest.fixture
async def worker(log: KafkaLog) -> AsyncIterator[Worker]:
    worker = Worker(log.settings)
    yield worker
    await worker.kill()


async def feed(log: KafkaLog, first: int, last: int) -> None:
    image = cv2.imencode(".jpg", np.full((36, 64, 3), 90, np.uint8))[1].tobytes()
    for seq in range(first, last):
        for camera, partition in CAMERAS.items():
            data = image[:-50] if seq % EVERY_BAD == 0 else image
            frame = Frame(camera=camera, epoch=1, seq=seq, captured_ns=1, width=64, height=36, image=data)
            headers = h.frame_headers([frame.id], "live", h.new_traceparent())
            await log.produce(Outgoing(FRAMES, partition, encode(frame), key=camera.encode(), headers=headers))


async def committed(log: KafkaLog, frames: int) -> None:
    deadline = Deadline.after(PATIENCE_S)
    while {await log.committed("prepare-live", TopicPartition(FRAMES, p)) for p in CAMERAS.values()} != {frames}:
        assert not deadline.passed
        await asyncio.sleep(0.05)


async def prepared(log: KafkaLog, partition: int) -> list[FrameId]:
    """Return the frames in the batches of a partition, without the repeats of a restart."""
    found: list[FrameId] = []
    async for record in log.read(BATCHES, partition, 0, (await log.ends(BATCHES))[partition]):
        for item in decode(Batch, record.value).items:
            if not found or item.id > found[-1]:
                found.append(item.id)
    return found


async def test_every_frame_ends_in_a_batch_or_a_dead_letter(log: KafkaLog, worker: Worker) -> None:
    await publish(log, [PipelineConfig(name="full", model="m", width=32, height=32, max_items=4)])
    await worker.start()
    await feed(log, 0, 30)
    await committed(log, 30)
    await feed(log, 30, 60)
    await worker.kill()
    await worker.start()
    await feed(log, 60, 80)
    await committed(log, 80)
    assert await worker.stop() == 0

    for camera, partition in CAMERAS.items():
        expected = [FrameId(camera, 1, seq) for seq in range(80) if seq % EVERY_BAD]
        assert await prepared(log, partition) == expected
    letters = [r async for r in log.read(DEADLETTER, 0, 0, (await log.ends(DEADLETTER))[0])]
    dead = {frame for letter in letters for frame in h.frames_of(letter.headers)}
    assert dead == {FrameId(camera, 1, seq) for camera in CAMERAS for seq in range(0, 80, EVERY_BAD)}
    assert {failure.error for letter in letters if (failure := h.read_failure(letter.headers))} == {"CutShort"}


async def test_an_invalid_pipeline_does_not_stop_the_other_pipelines(log: KafkaLog, worker: Worker) -> None:
    good = PipelineConfig(name="full", model="m", width=32, height=32, max_items=4)
    bad = good.model_dump_json().replace('"full"', '"none"').encode()
    await log.produce(Outgoing(CONFIG, 0, bad, key=b"pipeline/none"))
    await publish(log, [good])
    await worker.start()
    await feed(log, 0, 10)
    await committed(log, 10)
    assert await worker.stop() == 0
    for camera, partition in CAMERAS.items():
        assert await prepared(log, partition) == [FrameId(camera, 1, seq) for seq in range(10) if seq % EVERY_BAD]
