"""The log on Kafka."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import (
    IllegalStateError,
    InvalidProducerEpoch,
    KafkaError,
    OutOfOrderSequenceNumber,
    ProducerFenced,
)
from aiokafka.structs import ConsumerRecord

from ingest import kafka
from ingest.clock import Deadline
from ingest.exceptions import Fenced, LogUnavailable
from ingest.kafka import KafkaSettings
from ingest.log import LogRecord, Outgoing, Position, Slot

__all__ = ["KafkaLog", "from_consumer"]

READ_TIMEOUT_S = 30.0
"""How long a bounded read waits for the broker's next answer before it gives up: a broker's restart, and some."""
_POLL_MS = 500
"""Long enough to cost nothing, short enough to notice the deadline."""


def from_consumer(settings: KafkaSettings, record: ConsumerRecord[bytes, bytes]) -> LogRecord:
    """Turn aiokafka's record into ours, with the topic's name in the contract."""
    return LogRecord(
        topic=record.topic.removeprefix(settings.prefix),
        partition=record.partition,
        offset=record.offset,
        key=record.key,
        value=record.value or b"",
        headers=dict(record.headers),
        timestamp_ms=record.timestamp,
    )


class KafkaLog:
    """A Log on an Apache Kafka cluster. Clients are started when first needed and stopped by ``close``."""

    def __init__(self, settings: KafkaSettings, client_id: str) -> None:
        self.settings = settings
        self._client_id = client_id
        self._producer: AIOKafkaProducer | None = None
        self._reader: AIOKafkaConsumer | None = None
        self._starting = asyncio.Lock()
        self._writers: set[_KafkaWriter] = set()

    async def produce(self, record: Outgoing) -> Position:
        """Write one record and return where, once every replica has it."""
        producer = await self._started_producer()
        try:
            meta = await producer.send_and_wait(**_arguments(self.settings, record))
        except KafkaError as error:
            raise LogUnavailable(f"{record.topic}[{record.partition}] was not written: {error!r}") from error
        return Position(meta.partition, meta.offset)

    async def partitions(self) -> Mapping[str, int]:
        """Return the topics under this prefix and how many partitions each has."""
        admin = kafka.admin(self.settings, self._client_id)
        try:
            await admin.start()
            names = [t for t in await admin.list_topics() if t.startswith(self.settings.prefix)]
            described = await admin.describe_topics(names) if names else []
        except KafkaError as error:
            raise LogUnavailable(f"{self.settings.bootstrap} did not list its topics: {error!r}") from error
        finally:
            await admin.close()
        return {t["topic"].removeprefix(self.settings.prefix): len(t["partitions"]) for t in described}

    async def ends(self, topic: str) -> Mapping[int, int]:
        """Return, per partition, the offset after the last committed record."""
        reader, parts = await self._partitions_of(topic)
        return {tp.partition: offset for tp, offset in (await reader.end_offsets(parts)).items()}

    async def beginnings(self, topic: str) -> Mapping[int, int]:
        """Return, per partition, the first offset that retention has left."""
        reader, parts = await self._partitions_of(topic)
        return {tp.partition: offset for tp, offset in (await reader.beginning_offsets(parts)).items()}

    async def read(self, topic: str, partition: int, start: int, stop: int) -> AsyncIterator[LogRecord]:
        """Yield the committed records from ``start`` up to but not including ``stop``."""
        if start >= stop:
            return
        consumer = kafka.consumer(self.settings, self._client_id)
        tp = TopicPartition(self.settings.topic(topic), partition)
        consumer.assign([tp])
        try:
            await consumer.start()
            consumer.seek(tp, start)
            async for record in _bounded(consumer, tp, stop):
                yield from_consumer(self.settings, record)
        except KafkaError as error:
            raise LogUnavailable(f"{topic}[{partition}] could not be read: {error!r}") from error
        finally:
            await consumer.stop()

    async def committed(self, group: str, slot: Slot) -> int | None:
        """Return the next offset that a group will read, None when it has committed none."""
        admin = kafka.admin(self.settings, self._client_id)
        tp = TopicPartition(self.settings.topic(slot.topic), slot.partition)
        try:
            await admin.start()
            offsets = await admin.list_consumer_group_offsets(self.settings.group(group), partitions=[tp])
        except KafkaError as error:
            raise LogUnavailable(f"offsets of {group} could not be read: {error!r}") from error
        finally:
            await admin.close()
        offset = offsets[tp].offset if tp in offsets else -1
        return offset if offset >= 0 else None

    async def writer(self, transactional_id: str) -> _KafkaWriter:
        """Open the writer of this id: abort what an older one left open, and fence it."""
        writer = _KafkaWriter(self.settings, self._client_id, self.settings.group(transactional_id))
        await writer.open()
        self._writers.add(writer)
        return writer

    async def close(self) -> None:
        """Stop every client."""
        for writer in list(self._writers):
            await writer.close()
        for client in (self._producer, self._reader):
            if client is not None:
                await client.stop()
        self._producer = self._reader = None

    async def _started_producer(self) -> AIOKafkaProducer:
        async with self._starting:
            if self._producer is None:
                self._producer = kafka.producer(self.settings, self._client_id)
                await _start(self._producer, self.settings)
        return self._producer

    async def _partitions_of(self, topic: str) -> tuple[AIOKafkaConsumer, list[TopicPartition]]:
        async with self._starting:
            if self._reader is None:
                self._reader = kafka.consumer(self.settings, self._client_id)
                await _start(self._reader, self.settings)
        name = self.settings.topic(topic)
        await self._reader._client.force_metadata_update()  # partitions_for_topic answers from the cache only
        numbers = self._reader.partitions_for_topic(name) or await self._unknown_topic(name)
        return self._reader, [TopicPartition(name, p) for p in sorted(numbers)]

    async def _unknown_topic(self, name: str) -> set[int]:
        assert self._reader is not None  # noqa: S101  (narrowing for the type checker)
        await self._reader.topics()
        numbers = self._reader.partitions_for_topic(name)
        if not numbers:
            raise LogUnavailable(f"no topic {name}: run `sightline topics create`")
        return set(numbers)


class _KafkaWriter:
    """A transactional producer. One transaction at a time."""

    def __init__(self, settings: KafkaSettings, client_id: str, transactional_id: str) -> None:
        self._settings = settings
        self._id = transactional_id
        self._producer = kafka.producer(settings, client_id, transactional_id=transactional_id)
        self._open = False

    async def open(self) -> None:
        await _start(self._producer, self._settings)
        self._open = True

    async def write(self, records: Sequence[Outgoing], group: str, offsets: Mapping[Slot, int]) -> None:
        """Write all records and the group's offsets in one transaction."""
        topics = {TopicPartition(self._settings.topic(s.topic), s.partition): o for s, o in offsets.items()}
        try:
            await self._producer.begin_transaction()
            sent = [await self._producer.send(**_arguments(self._settings, r)) for r in records]
            await asyncio.gather(*sent)
            await self._producer.send_offsets_to_transaction(topics, self._settings.group(group))
            await self._producer.commit_transaction()
        except (ProducerFenced, InvalidProducerEpoch, OutOfOrderSequenceNumber, IllegalStateError) as error:
            raise Fenced(f"{self._id}: {type(error).__name__}: {error}") from error
        except KafkaError as error:
            raise LogUnavailable(f"{self._id}: transaction failed: {error!r}") from error

    async def close(self) -> None:
        """Abort what is open and let go."""
        if self._open:
            self._open = False
            with contextlib.suppress(KafkaError):  # a fenced producer cannot abort; the broker did it for us
                await self._producer.stop()


async def _bounded(
    consumer: AIOKafkaConsumer, tp: TopicPartition, stop: int
) -> AsyncIterator[ConsumerRecord[bytes, bytes]]:
    deadline = Deadline.after(READ_TIMEOUT_S)
    while await consumer.position(tp) < stop:
        batches = await consumer.getmany(tp, timeout_ms=_POLL_MS)
        for record in batches.get(tp, []):
            if record.offset >= stop:
                return
            yield record
        if batches:
            deadline = Deadline.after(READ_TIMEOUT_S)
        elif deadline.passed:
            raise LogUnavailable(
                f"{tp.topic}[{tp.partition}] was silent for {READ_TIMEOUT_S:.0f} s before offset {stop}"
            )


async def _start(client: AIOKafkaProducer | AIOKafkaConsumer, settings: KafkaSettings) -> None:
    try:
        await client.start()
    except KafkaError as error:
        await client.stop()
        raise LogUnavailable(f"no Kafka at {settings.bootstrap}: {error!r}") from error


def _arguments(settings: KafkaSettings, record: Outgoing) -> dict[str, Any]:
    return {
        "topic": settings.topic(record.topic),
        "value": record.value,
        "key": record.key,
        "partition": record.partition,
        "headers": list(record.headers.items()),
    }
