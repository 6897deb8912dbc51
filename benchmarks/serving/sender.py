"""A producer of frames at a steady rate."""

from __future__ import annotations

import asyncio
import time

from aiokafka import AIOKafkaProducer

from benchmarks.pipeline import PipelineCase, frame_record
from ingest.contract.topics import FRAMES
from ingest.kafka.settings import KafkaSettings


class SteadySender:
    """Sends a case's pictures in an endless loop, as frames of all cameras in turn, in one epoch (capture run)."""

    def __init__(self, case: PipelineCase, settings: KafkaSettings, fps: float) -> None:
        self._case, self._settings, self._fps = case, settings, fps
        self._over = False
        self.sent = 0

    def stop(self) -> None:
        """Make ``run`` end after the current frame."""
        self._over = True

    async def run(self, producer: AIOKafkaProducer) -> None:
        """Send ``fps`` frames per second until ``stop``. Return when Kafka has acknowledged all frames."""
        topic, started_s = self._settings.topic(FRAMES), time.perf_counter()
        while not self._over:
            partition, camera, value, headers = frame_record(self._case, self.sent, epoch=1)
            await producer.send(topic, value, key=camera.encode(), partition=partition, headers=list(headers.items()))
            self.sent += 1
            await asyncio.sleep(max(0.0, started_s + self.sent / self._fps - time.perf_counter()))
        await producer.flush()
