"""Reader of a running stack's Kafka topics, which keeps the figures of the live table up to date."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.errors import KafkaError

from deploy.local.demo.figures import Figures
from ingest.contract.codec import decode, decode_json
from ingest.contract.records import Alert, Delivery, Event, Heartbeat, Incident, Result
from ingest.contract.topics import ALERTS, DEADLETTER, DELIVERIES, EVENTS, INCIDENTS, RESULTS, STATUS
from ingest.exceptions import CodecError, LogUnavailable
from ingest.kafka import settings as kafka
from ingest.kafka.kafkalog import KafkaLog, from_consumer
from ingest.kafka.settings import KafkaSettings
from ingest.runtime import logs

_POLL_MS = 200

_log = logs.get("deploy.watch")


@contextlib.asynccontextmanager
async def beside(work: Coroutine[Any, Any, None], *, to_its_end: bool = False) -> AsyncIterator[None]:
    """Run the coroutine ``work`` in the background while the body of the ``with`` statement runs.

    When the body ends, cancel ``work``, or wait until ``work`` ends if ``to_its_end`` is set. If ``work`` fails,
    cancel the body and raise the error of ``work``. If the body raises an error, cancel ``work`` and raise the body's
    error.
    """
    failures: tuple[BaseException, ...] = ()
    try:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(work)
            yield
            if not to_its_end:
                task.cancel()
    except BaseExceptionGroup as failed:
        failures = failed.exceptions
    if failures:  # raised outside the handler, so that the traceback does not repeat the exception group
        raise failures[0]


@contextlib.asynccontextmanager
async def watching(settings: KafkaSettings) -> AsyncIterator[Figures]:
    """Read a deployment's topics from their first records while the body of the ``with`` statement runs.

    Yield a ``Figures`` object and keep the object up to date. Skip unreadable records, because the audit after the
    run counts unreadable records. If reading fails, cancel the body of the ``with`` statement and raise the error,
    which is usually LogUnavailable.
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
            raise LogUnavailable(f"the Kafka topics cannot be read: {error!r}") from error
        now_ns = time.time_ns()
        for record in itertools.chain.from_iterable(fetched.values()):
            found = from_consumer(settings, record)
            try:
                _COUNTERS[found.topic](figures, found.value, now_ns)
            except CodecError as error:
                _log.warning("record_unreadable", topic=found.topic, offset=found.offset, error=str(error))


_COUNTERS: dict[str, Callable[[Figures, bytes, int], None]] = {
    RESULTS: lambda figures, value, now_ns: figures.result(decode(Result, value), now_ns),
    EVENTS: lambda figures, value, _: figures.event(decode_json(Event, value)),
    INCIDENTS: lambda figures, value, _: figures.incident(decode_json(Incident, value)),
    ALERTS: lambda figures, value, _: figures.alert(decode_json(Alert, value)),
    DELIVERIES: lambda figures, value, _: figures.delivery(decode_json(Delivery, value)),
    DEADLETTER: lambda figures, *_: figures.dead_letter(),
    STATUS: lambda figures, value, now_ns: figures.heartbeat(decode(Heartbeat, value), now_ns / 1e9),
}
"""For each topic, the function that adds one record to the figures. The function's arguments are the figures, the
record's value, and the arrival time of the record in Unix ns."""
