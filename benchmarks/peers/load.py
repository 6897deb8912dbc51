"""Loads and results on Kafka: records in one transaction, records at a fixed rate, and the arrival of results."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import NewTopic

from ingest.contract.topics import FRAMES, TOPICS
from ingest.kafka import settings as kafka
from ingest.kafka.kafkalog import KafkaLog
from ingest.kafka.settings import KafkaSettings
from ingest.runtime.clock import Deadline

TRANSACTION_MS = 600_000
"""Timeout of the transaction that holds a load, in ms. A load may wait until the measured system has started."""
POLL_WAIT_MS = 50
"""Longest wait for results during a burst, in ms. The collector of results fetches at most 20 times a second.
Fetching at most 20 times a second takes little CPU time from the measured systems, and the end of a burst is noticed
at most 50 ms late."""
POLL_BYTES = 8 * 1024 * 1024
TOPICS_S = 30.0
"""Maximum time until the broker knows new topics, in seconds."""

Release = Callable[[], Awaitable[float]]


class LoadRecord(NamedTuple):
    """One record of a load. ``name`` is the id in the headers of the record's result."""

    partition: int
    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]
    name: bytes = b""


@contextlib.asynccontextmanager
async def holding(settings: KafkaSettings, topic: str, records: Iterable[LoadRecord]) -> AsyncIterator[Release]:
    """Write records to a topic in one transaction. No consumer can read the records before their release.

    The yielded function commits the transaction, and returns the time just before the commit, in s on the clock of
    ``time.perf_counter``.
    """
    producer = kafka.producer(
        settings, "load", transactional_id=f"load-{uuid.uuid4()}", transaction_timeout_ms=TRANSACTION_MS
    )
    await producer.start()
    try:
        await producer.begin_transaction()
        for record in records:
            await _send(producer, settings.topic(topic), record)
        await producer.flush()

        async def release() -> float:
            started_s = time.perf_counter()
            await producer.commit_transaction()
            return started_s

        yield release
    finally:
        await producer.stop()


async def pace(settings: KafkaSettings, topic: str, records: list[LoadRecord], rate: float) -> dict[bytes, float]:
    """Send ``rate`` records per second, and return when each record was sent, by name."""
    producer = kafka.producer(settings, "load", linger_ms=0)
    await producer.start()
    sent_s: dict[bytes, float] = {}
    try:
        started_s = time.perf_counter()
        for number, record in enumerate(records):
            await asyncio.sleep(max(0.0, started_s + number / rate - time.perf_counter()))
            sent_s[record.name] = time.perf_counter()
            await _send(producer, settings.topic(topic), record)
    finally:
        await producer.stop()
    return sent_s


async def _send(producer: AIOKafkaProducer, topic: str, record: LoadRecord) -> None:
    await producer.send(topic, record.value, key=record.key, partition=record.partition, headers=record.headers)


class ResultArrivals:
    """First arrivals of results: ``at_s`` has the time by name, on the clock of ``time.perf_counter``.

    ``repeats`` counts results that arrived again, as at-least-once delivery allows after a rebalance.
    """

    def __init__(self) -> None:
        self.at_s: dict[bytes, float] = {}
        self.values: list[bytes] = []
        self.repeats = 0

    def add(self, name: bytes, value: bytes, at_s: float) -> None:
        """Note one result."""
        if name in self.at_s:
            self.repeats += 1
            return
        self.at_s[name] = at_s
        self.values.append(value)

    async def wait(self, count: int, timeout_s: float, failed: Callable[[], str] = lambda: "") -> None:
        """Wait for ``count`` results. Raise TimeoutError after ``timeout_s``, or once ``failed`` returns a text."""
        deadline = Deadline.after(timeout_s)
        while len(self.at_s) < count:
            reason = failed()
            if reason or deadline.passed:
                raise TimeoutError(f"{len(self.at_s)} of {count} results arrived within {timeout_s:.0f} s. {reason}")
            await asyncio.sleep(0.002)


@contextlib.asynccontextmanager
async def collecting(
    settings: KafkaSettings, topic: str, partitions: int, *, header: str = "", prompt: bool = False
) -> AsyncIterator[ResultArrivals]:
    """Collect the results that a topic gets from now on. ``header`` names the header with the id of a result.

    A ``prompt`` collector gets each result at once, otherwise it gets results every ``POLL_WAIT_MS``.
    """
    poll: dict[str, Any] = {} if prompt else {"fetch_min_bytes": POLL_BYTES, "fetch_max_wait_ms": POLL_WAIT_MS}
    consumer = kafka.consumer(settings, "collector", **poll)
    await consumer.start()
    consumer.assign([TopicPartition(settings.topic(topic), number) for number in range(partitions)])
    await consumer.seek_to_end()
    arrivals = ResultArrivals()
    task = asyncio.create_task(_collect(consumer, arrivals, header))
    try:
        yield arrivals
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await consumer.stop()


async def _collect(consumer: AIOKafkaConsumer, arrivals: ResultArrivals, header: str) -> None:
    while True:
        fetched = await consumer.getmany(timeout_ms=200)
        at_s = time.perf_counter()
        for records in fetched.values():
            for record in records:
                place = f"{record.partition}/{record.offset}".encode()
                name = next((value for key, value in record.headers if key == header), place)
                arrivals.add(name, record.value or b"", at_s)


async def create_topics(settings: KafkaSettings, names: Collection[str], partitions: int) -> None:
    """Create topics for a peer with the settings of the topic ``frames``, and wait until the broker knows them."""
    admin = kafka.admin(settings)
    await admin.start()
    try:
        topics = [
            NewTopic(settings.topic(name), partitions, 1, topic_configs=TOPICS[FRAMES].settings()) for name in names
        ]
        response = await admin.create_topics(topics)
        assert all(code == 0 for _, code, *_ in response.topic_errors), response
    finally:
        await admin.close()
    deadline = Deadline.after(TOPICS_S)
    async with KafkaLog(settings, "bench") as log:
        while not set(names) <= set(await log.partitions()):
            assert not deadline.passed, f"the broker does not know the topics {', '.join(names)} after {TOPICS_S:g} s"
            await asyncio.sleep(0.05)


async def delete_topics(settings: KafkaSettings) -> None:
    """Delete all topics whose name contains the prefix of ``settings``.

    A peer may create topics whose names have the prefix in the middle, as Quix Streams does for its state.
    """
    admin = kafka.admin(settings)
    await admin.start()
    try:
        await admin.delete_topics([name for name in await admin.list_topics() if settings.prefix in name])
    finally:
        await admin.close()
