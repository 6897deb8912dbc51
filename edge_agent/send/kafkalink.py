"""A link straight to Kafka."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import Mapping
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
from ingest.contract.topics import FRAMES, FRAMES_LATE, READINGS, partition_for
from ingest.kafka import settings as kafka
from ingest.kafka.settings import KafkaSettings
from ingest.kafka.writer import stop

STOP_S = 2.0
"""A link that works takes what is left at once; one that does not is not waited for."""
_REFUSALS = (MessageSizeTooLargeError, RecordListTooLargeError, CorruptRecordException)
"""What a record will never be taken for. A time that is too far ahead of the broker's is none: it is that of the try,
and right once our clock is."""
_BY_BROKER = 1
"""LogAppendTime: the record has the broker's time."""
_COUNTED = {FRAMES: FRAMES, FRAMES_LATE: FRAMES, READINGS: READINGS}
"""Whose partitions say where a record of a topic goes; ``status`` has one."""


class KafkaLink:
    """An idempotent producer, which keeps the order of each partition."""

    def __init__(self, settings: KafkaSettings, client_id: str, pins: Mapping[str, int]) -> None:
        self._settings, self._client_id, self._pins = settings, client_id, pins
        self._producer: AIOKafkaProducer | None = None
        self._partitions: dict[str, int] = {}
        self.clock = ClockOffset()

    @property
    def address(self) -> str:
        """The cluster's bootstrap address."""
        return self._settings.bootstrap

    async def open(self) -> None:
        """Start a producer, and ask how many partitions there are. Raise LinkLost or ConfigError."""
        producer = kafka.producer(self._settings, self._client_id)
        try:
            await producer.start()
            for topic in (FRAMES, READINGS):
                self._partitions[topic] = len(await producer.partitions_for(self._settings.topic(topic)))
        except BaseException as error:
            await producer.stop()
            if isinstance(error, (KafkaError, OSError)):
                raise LinkLost(repr(error)) from error
            raise
        self._producer = producer

    async def send(self, parcel: OutboundRecord) -> asyncio.Future[None]:
        """Hand a parcel to the producer. Raise LinkLost."""
        if self._producer is None:
            raise LinkLost(f"{self.address}: not open")
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            sent = await self._producer.send(**self._arguments(parcel))
        except _REFUSALS as error:  # it is over the producer's own limit
            done.set_exception(RecordRefused(str(error)))
            return done
        except (KafkaError, OSError) as error:
            raise LinkLost(repr(error)) from error
        sent.add_done_callback(functools.partial(_answer, done))
        return done

    async def publish(self, parcel: OutboundRecord) -> None:
        """Hand over something that need not arrive."""
        if self._producer:
            with contextlib.suppress(KafkaError, OSError):
                sent_ns = time.time_ns()
                sent = await self._producer.send(**self._arguments(parcel))
                sent.add_done_callback(functools.partial(self._heard, sent_ns))

    async def close(self) -> None:
        """Stop the producer; what is in flight is in doubt anyway."""
        producer, self._producer = self._producer, None
        if producer:
            with contextlib.suppress(KafkaError, OSError):
                await stop(producer, STOP_S)

    def _heard(self, sent_ns: int, sent: asyncio.Future[Any]) -> None:
        """Compare clocks. An error is taken, since nobody waits for it."""
        if sent.cancelled() or sent.exception():
            return
        met = sent.result()
        if met.timestamp_type == _BY_BROKER:
            self.clock.add(sent_ns, time.time_ns(), met.timestamp)

    def _arguments(self, parcel: OutboundRecord) -> dict[str, Any]:
        counted = _COUNTED.get(parcel.topic)
        pins = self._pins if counted == FRAMES else {}
        return {
            "topic": self._settings.topic(parcel.topic),
            "value": parcel.value,
            "key": parcel.key.encode(),
            "partition": partition_for(parcel.key, self._partitions[counted], pins) if counted else 0,
            "headers": list(parcel.headers.items()),
        }


def _answer(done: asyncio.Future[None], sent: asyncio.Future[Any]) -> None:
    error = None if sent.cancelled() else sent.exception()
    if done.done():
        return
    if sent.cancelled():
        done.cancel()
    elif error is None:
        done.set_result(None)
    else:
        done.set_exception(RecordRefused(repr(error)) if isinstance(error, _REFUSALS) else LinkLost(repr(error)))
