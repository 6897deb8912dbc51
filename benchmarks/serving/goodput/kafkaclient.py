"""Open-loop client of the engine node: writes one batch record per request, and reads the results.

Prints a JSON list: the latency of each request in seconds, or null if the request has no classified result. A latency
counts from the planned arrival until the client reads the committed result, so the latency includes Kafka in both
directions.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from pathlib import Path

import msgpack
from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaPartition

from benchmarks.pipeline import CAMERAS
from benchmarks.serving.goodput.openload import arrivals_s
from benchmarks.serving.inputs import BatchPlace, batch_record, whole_frame
from ingest.contract.codec import decode
from ingest.contract.records import Result
from ingest.contract.topics import RESULTS
from ingest.kafka import settings as kafka
from ingest.kafka.log import Outgoing
from ingest.kafka.settings import KafkaSettings
from ingest.kafka.writer import arguments
from ingest.runtime import eventloop
from ingest.site import PipelineConfig


class KafkaLoad:
    """One run of the client: a producer of frames and a consumer of results.

    The epoch of the frames is the run's start time in ns.
    """

    def __init__(self, settings: KafkaSettings, options: argparse.Namespace) -> None:
        self._settings, self._options = settings, options
        self._pipeline = PipelineConfig.model_validate_json(options.pipeline)
        frames = msgpack.unpackb(options.pictures.read_bytes())
        self._frames = [whole_frame(self._pipeline, *frame) for frame in frames]
        self._planned_s = arrivals_s(options.rate, options.seconds, options.seed)
        self._latencies: list[float | None] = [None] * len(self._planned_s)
        self._epoch = time.time_ns()
        self._answered = 0
        self._started_s = 0.0

    async def drive(self) -> list[float | None]:
        """Send all requests at their planned times. Return the latency of each request in seconds, or None for a
        request without a result."""
        producer = kafka.producer(self._settings, "load")
        consumer = kafka.consumer(self._settings, "load-results")
        await producer.start()
        await consumer.start()
        parts = [KafkaPartition(self._settings.topic(RESULTS), number) for number in range(CAMERAS)]
        consumer.assign(parts)
        await consumer.seek_to_end(*parts)
        for part in parts:  # the position is the end of now, not of the first poll
            await consumer.position(part)
        self._started_s = time.perf_counter() + 0.1
        reading = asyncio.create_task(self._read(consumer))
        try:
            for number, at_s in enumerate(self._planned_s):
                await asyncio.sleep(max(0.0, self._started_s + at_s - time.perf_counter()))
                await producer.send(**arguments(self._settings, self._record(number)))
            await asyncio.wait({reading}, timeout=self._options.drain_s)
            if reading.done():
                reading.result()  # raises the reader's error
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            await consumer.stop()
            await producer.stop()
        return self._latencies

    def _record(self, number: int) -> Outgoing:
        partition, seq = number % CAMERAS, number // CAMERAS
        place = BatchPlace(partition, f"camera-{partition}", self._epoch, seq, time.time_ns())
        return batch_record(self._pipeline, [self._frames[number % len(self._frames)]], place)

    async def _read(self, consumer: AIOKafkaConsumer) -> None:
        while self._answered < len(self._planned_s):
            batches = await consumer.getmany(timeout_ms=1000)
            now_s = time.perf_counter() - self._started_s
            for record in (record for records in batches.values() for record in records):
                result = decode(Result, record.value)
                if result.epoch == self._epoch:
                    number = result.seq * CAMERAS + record.partition
                    self._answered += 1
                    if result.outcome == "classified":
                        self._latencies[number] = now_s - self._planned_s[number]


def main() -> None:
    """Send all requests, and print their latencies."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--prefix", required=True)
    parser.add_argument("--pipeline", required=True, help="The pipeline's configuration, as JSON.")
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--drain-s", type=float, required=True)
    options = parser.parse_args()
    settings = KafkaSettings(bootstrap=options.bootstrap, prefix=options.prefix)
    print(json.dumps(eventloop.run(KafkaLoad(settings, options).drive())))


if __name__ == "__main__":
    main()
