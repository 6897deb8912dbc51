"""Reader of a running stack's topics that keeps its figures up to date."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Callable

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.errors import KafkaError

from deploy.local.beside import beside
from deploy.local.demo.figures import Figures
from ingest.contract.codec import decode, decode_json
from ingest.contract.records import Alert, Delivery, Event, Heartbeat, Result
from ingest.contract.topics import ALERTS, DEADLETTER, DELIVERIES, EVENTS, RESULTS, STATUS
from ingest.exceptions import CodecError, LogUnavailable
from ingest.kafka import settings as kafka
from ingest.kafka.kafkalog import KafkaLog, from_consumer
from ingest.kafka.log import LogRecord
from ingest.kafka.settings import KafkaSettings
from ingest.runtime import logs

_POLL_MS = 200

_log = logs.get("deploy.watch")


@contextlib.asynccontextmanager
async def watching(settings: KafkaSettings) -> AsyncIterator[Figures]:
    """Read a deployment's topics from their beginnings while the block runs.

    Yield figures that are updated meanwhile. The audit counts unreadable records, not this reader. When reading
    fails, the block is cancelled and the error is raised: LogUnavailable, or any other.
    """
    figures = Figures()
    async with KafkaLog(settings, "sightline-watch") as log:
        counts = await log.partitions()
    parts = [KafkaPartition(settings.topic(t), p) for t in _COUNTERS for p in range(counts[t])]
    consumer = kafka.consumer(settings, "sightline-watch", max_poll_records=2000)
    try:
        await consumer.start()
        consumer.assign(parts)
        await consumer.seek_to_beginning(*parts)
        async with beside(_follow(consumer, settings, figures)):
            yield figures
    finally:
        await consumer.stop()


async def _follow(consumer: AIOKafkaConsumer, settings: KafkaSettings, figures: Figures) -> None:
    while True:
        try:
            fetched = await consumer.getmany(timeout_ms=_POLL_MS)
        except KafkaError as error:
            raise LogUnavailable(f"reading the topics failed: {error!r}") from error
        now_ns = time.time_ns()
        for record in itertools.chain.from_iterable(fetched.values()):
            _count(figures, from_consumer(settings, record), now_ns)


def _count(figures: Figures, record: LogRecord, now_ns: int) -> None:
    try:
        _COUNTERS[record.topic](figures, record.value, now_ns)
    except CodecError as error:
        _log.warning("record_unreadable", topic=record.topic, offset=record.offset, error=str(error))


_COUNTERS: dict[str, Callable[[Figures, bytes, int], None]] = {
    RESULTS: lambda figures, value, now_ns: figures.result(decode(Result, value), now_ns),
    EVENTS: lambda figures, value, _: figures.event(decode_json(Event, value)),
    ALERTS: lambda figures, value, _: figures.alert(decode_json(Alert, value)),
    DELIVERIES: lambda figures, value, _: figures.delivery(decode_json(Delivery, value)),
    DEADLETTER: lambda figures, *_: figures.dead_letter(),
    STATUS: lambda figures, value, now_ns: figures.heartbeat(decode(Heartbeat, value), now_ns / 1e9),
}
"""Counter of each topic: it takes the figures, the record's value, and its arrival in Unix ns."""
