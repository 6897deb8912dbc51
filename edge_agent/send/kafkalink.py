"""Link that writes records to Kafka directly."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    CorruptRecordException,
    KafkaError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
)

from edge_agent.clockoffset import ClockOffset
from edge_agent.exceptions import LinkLost, RecordRefused
from edge_agent.send.link import OutboundRecord
from edge_agent.send.window import MAX_BATCH_BYTES, MIN_BATCH_BYTES, BatchLimit
from ingest.contract.topics import FRAMES, FRAMES_LATE, READINGS, partition_for
from ingest.exceptions import LogUnavailable
from ingest.kafka import settings as kafka
from ingest.kafka.settings import KafkaSettings
from ingest.kafka.writer import stop

RefreshPins = Callable[[], Awaitable[None]]

STOP_S = 2.0
"""Maximum time to wait until the producer has stopped, in seconds. The wait is limited because a broken producer may
never stop."""
_REFUSALS = (MessageSizeTooLargeError, RecordListTooLargeError, CorruptRecordException)
"""Errors that mean that Kafka will never accept the record. An error about a timestamp too far ahead of the broker's
clock is not listed, because each attempt sets a new timestamp."""
_LOG_APPEND_TIME = 1
"""Kafka's number for the timestamp type LogAppendTime, which means that the broker has set the record's timestamp."""
_PARTITIONED_LIKE = {FRAMES: FRAMES, FRAMES_LATE: FRAMES, READINGS: READINGS}
"""Map from each topic with several partitions to the topic from which the number of partitions is read. The topic
``status`` is not listed, because ``status`` has only one partition."""


class KafkaLink:
    """Link over an idempotent Kafka producer, which keeps the order of records in each partition.

    ``pins`` map a camera's name to its partition, and may change while the link is open. ``refresh_pins`` updates
    ``pins``, or raises LogUnavailable if Kafka is unreachable. ``open`` calls ``refresh_pins`` before the first
    record is sent. Without a pin, the frames of a camera would go to another partition after ``topics grow`` has
    added partitions.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        client_id: str,
        pins: Mapping[str, int],
        refresh_pins: RefreshPins | None = None,
    ) -> None:
        self._settings, self._client_id = settings, client_id
        self._pins, self._refresh_pins = pins, refresh_pins
        self._producer: AIOKafkaProducer | None = None
        self._partitions: dict[str, int] = {}
        self._batch_limit = BatchLimit(time.monotonic())
        self._large_batches = self._batch_refused = False
        self.clock = ClockOffset()

    @property
    def address(self) -> str:
        """The cluster's bootstrap address."""
        return self._settings.bootstrap

    async def open(self) -> None:
        """Start a producer, read each topic's number of partitions, and then read the pins: the partitions of the
        cameras that keep theirs although a topic got more partitions.

        Raise LinkLost if Kafka is unreachable, or ConfigError if a configured file is unusable.

        ``topics grow`` writes the pins before it adds partitions, so a link that reads the pins last never combines a
        new number of partitions with old pins. An old number of partitions with new pins is harmless, because each
        pin names the partition that the camera had before the growth.
        """
        producer = kafka.producer(self._settings, self._client_id)
        try:
            await producer.start()
            for topic in (FRAMES, READINGS):
                self._partitions[topic] = len(await producer.partitions_for(self._settings.topic(topic)))
            if self._refresh_pins:
                await self._refresh_pins()
        except BaseException as error:
            await producer.stop()
            if isinstance(error, (KafkaError, OSError, LogUnavailable)):
                raise LinkLost(repr(error)) from error
            raise
        self._producer = producer
        max_batch_bytes = MIN_BATCH_BYTES if self._batch_refused else MAX_BATCH_BYTES
        self._batch_limit = BatchLimit(time.monotonic(), max_batch_bytes)
        self._large_batches = self._batch_refused = False

    async def send(self, record: OutboundRecord) -> asyncio.Future[None]:
        """Pass a record to the producer. Raise LinkLost."""
        if self._producer is None:
            raise LinkLost(f"the link to {self.address} is not open")
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            sent = await self._producer.send(**self._arguments(record))
        except _REFUSALS as error:  # larger than the producer's own limit
            done.set_exception(RecordRefused(str(error)))
            return done
        except (KafkaError, OSError) as error:
            raise LinkLost(repr(error)) from error
        sent.add_done_callback(functools.partial(self._forward, done, record.size))
        return done

    async def publish(self, record: OutboundRecord) -> None:
        """Pass a record that may get lost, such as a heartbeat, to the producer."""
        if self._producer:
            with contextlib.suppress(KafkaError, OSError):
                sent_ns = time.time_ns()
                sent = await self._producer.send(**self._arguments(record))
                sent.add_done_callback(functools.partial(self._compare_clocks, sent_ns))

    async def close(self) -> None:
        """Stop the producer without waiting for records in flight."""
        producer, self._producer = self._producer, None
        if producer:
            with contextlib.suppress(KafkaError, OSError):
                await stop(producer, STOP_S)

    def _forward(self, done: asyncio.Future[None], size: int, sent: asyncio.Future[Any]) -> None:
        error = None if sent.cancelled() else sent.exception()
        if done.done():
            return
        if sent.cancelled():
            done.cancel()
        elif error is None:
            done.set_result(None)
            self._adjust_batches(size)
        else:
            done.set_exception(self._typed(error))

    def _adjust_batches(self, acked_bytes: int) -> None:
        self._batch_limit.acked(acked_bytes, time.monotonic())
        if self._producer:
            kafka.set_batch_bytes(self._producer, self._batch_limit.bytes)
            self._large_batches |= self._batch_limit.bytes > MIN_BATCH_BYTES

    def _typed(self, error: BaseException) -> Exception:
        """Turn an error of aiokafka into one that the sender expects: LinkLost or RecordRefused.

        Kafka refuses a whole batch even if only one of its records is faulty. If a large batch was refused, return
        LinkLost, and send only small batches over the next connection, so that Kafka refuses only the faulty record.
        """
        if not isinstance(error, _REFUSALS):
            return LinkLost(repr(error))
        if not self._large_batches:
            return RecordRefused(repr(error))
        self._batch_refused = True
        return LinkLost(f"Kafka refused a batch: {error!r}")

    def _compare_clocks(self, sent_ns: int, sent: asyncio.Future[Any]) -> None:
        """Update the difference to the broker's clock from the timestamp that the broker gave a published record.

        If the send failed, read the future's exception, because asyncio logs every exception that nobody reads.
        """
        if sent.cancelled() or sent.exception():
            return
        metadata = sent.result()
        if metadata.timestamp_type == _LOG_APPEND_TIME:
            self.clock.add(sent_ns, time.time_ns(), metadata.timestamp)

    def _arguments(self, record: OutboundRecord) -> dict[str, Any]:
        like = _PARTITIONED_LIKE.get(record.topic)
        pins = self._pins if like == FRAMES else {}
        return {
            "topic": self._settings.topic(record.topic),
            "value": record.value,
            "key": record.key.encode(),
            "partition": partition_for(record.key, self._partitions[like], pins) if like else 0,
            "headers": list(record.headers.items()),
        }
