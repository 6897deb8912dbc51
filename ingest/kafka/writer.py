"""Writing to Kafka: what a record must be before it is sent, transactions, and an end that waits for nobody."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.errors import (
    InvalidProducerEpoch,
    InvalidProducerIdMapping,
    InvalidTxnState,
    KafkaError,
    KafkaTimeoutError,
    OutOfOrderSequenceNumber,
    ProducerFenced,
)

from ingest.exceptions import Fenced, LogUnavailable
from ingest.kafka import settings as kafka
from ingest.kafka.log import Outgoing, TopicPartition, require_size
from ingest.kafka.settings import KafkaSettings

UNKNOWN_TOPIC_S = 5.0
"""A topic that was just made is known everywhere within a second; after five there is none."""
FLUSH_S = 5.0
"""How long a producer that is stopped tries to write what it was given: a broker's hiccup, not its restart."""

_FENCING = (ProducerFenced, InvalidProducerEpoch, InvalidProducerIdMapping, InvalidTxnState, OutOfOrderSequenceNumber)
"""What a broker says to the producer of an older epoch, depending on the request that it answers."""


async def start(client: Any, settings: KafkaSettings) -> None:
    """Start a producer, consumer or admin client. Raise LogUnavailable if there is no Kafka at the address."""
    try:
        await client.start()
    except BaseException as error:
        await (client.close if hasattr(client, "close") else client.stop)()
        if not isinstance(error, KafkaError):
            raise  # cancelled: whoever gave up must not leave a connection behind
        raise LogUnavailable(
            f"no Kafka at {settings.bootstrap} ({error!r}): start one with `sightline kafka start`, "
            "or say where one is with --kafka or SIGHTLINE_KAFKA"
        ) from error


async def stop(producer: AIOKafkaProducer, flush_s: float = FLUSH_S) -> None:
    """Stop a producer. What the broker does not take in that time is given up, and its sender is told."""
    try:
        async with asyncio.timeout(flush_s):
            await producer.flush()
    except TimeoutError:
        # An idempotent producer never gives up by itself: `producer.stop` waits for as long as the broker is gone.
        await producer._sender.close()
        producer._message_accumulator.fail_all(KafkaTimeoutError("the producer was stopped"))
    await producer.stop()


async def require_places(producer: AIOKafkaProducer, settings: KafkaSettings, records: Iterable[Outgoing]) -> None:
    """Raise LogUnavailable unless every record's partition exists, Oversize if one is too large."""
    places = set()
    for record in records:
        require_size(record)
        places.add((record.topic, record.partition))
    for topic, partition in places:
        name = settings.topic(topic)
        try:
            async with asyncio.timeout(UNKNOWN_TOPIC_S):
                known = await producer.partitions_for(name)
                if partition not in known:  # it may have been added since the producer looked last
                    await producer.client.force_metadata_update()
                    known = await producer.partitions_for(name)
        except (TimeoutError, KafkaError) as error:
            raise LogUnavailable(f"no topic {name}: run `sightline topics create`") from error
        if partition not in known:
            raise LogUnavailable(f"{name} has no partition {partition}, only {sorted(known)}")


def arguments(settings: KafkaSettings, record: Outgoing) -> dict[str, Any]:
    """Return what aiokafka's ``send`` takes. An empty value with a key is a tombstone, so that compaction works."""
    return {
        "topic": settings.topic(record.topic),
        "value": record.value if record.value or record.key is None else None,
        "key": record.key,
        "partition": record.partition,
        "headers": list(record.headers.items()),
    }


class KafkaWriter:
    """A transactional producer. One transaction at a time; after the first failure it is of no further use."""

    def __init__(self, settings: KafkaSettings, client_id: str, transactional_id: str, timeout_s: float) -> None:
        self._settings = settings
        self._id = settings.group(transactional_id)
        self._producer = kafka.producer(settings, client_id, transactional_id=self._id)
        self._timeout_s = timeout_s
        self._flush_s = min(FLUSH_S, timeout_s)
        self._failed: Fenced | LogUnavailable | None = None
        self._in_transaction = False
        self.closed = False

    async def open(self) -> None:
        """Abort what an older writer of this id left open, and fence it. Raise LogUnavailable."""
        try:
            async with asyncio.timeout(self._timeout_s):
                await start(self._producer, self._settings)
        except TimeoutError as error:  # aiokafka asks for its producer id for ever
            raise LogUnavailable(f"{self._id}: not opened within {self._timeout_s:.0f} s") from error

    async def write(self, records: Sequence[Outgoing], group: str, offsets: Mapping[TopicPartition, int]) -> None:
        """Write all records and the group's offsets in one transaction. Raise Fenced, LogUnavailable or Oversize."""
        if self._failed is not None:
            raise type(self._failed)(str(self._failed))
        await require_places(self._producer, self._settings, records)
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._transaction(records, group, offsets)
        except BaseException as error:
            self._failed = self._verdict(error)
            _take_errors(self._producer)
            if isinstance(error, Exception):
                raise self._failed from error
            raise  # cancelled: `close` aborts what is open

    async def close(self) -> None:
        """Abort what is open and let go. May be called twice."""
        if self.closed:
            return
        self.closed = True
        if self._in_transaction and not isinstance(self._failed, Fenced):
            # The assertion is aiokafka's way to say that there is nothing (left) to abort.
            with contextlib.suppress(KafkaError, AssertionError, TimeoutError):
                async with asyncio.timeout(self._flush_s):
                    await self._producer.abort_transaction()
        await stop(self._producer, self._flush_s)
        _take_errors(self._producer)

    async def _transaction(
        self, records: Sequence[Outgoing], group: str, offsets: Mapping[TopicPartition, int]
    ) -> None:
        positions = {KafkaPartition(self._settings.topic(s.topic), s.partition): o for s, o in offsets.items()}
        await self._producer.begin_transaction()
        self._in_transaction = True
        sent = [await self._send(record) for record in records]
        await asyncio.gather(*sent)  # aiokafka would commit without those that failed
        if positions:
            await self._producer.send_offsets_to_transaction(positions, self._settings.group(group))
        await self._producer.commit_transaction()
        self._in_transaction = False

    async def _send(self, record: Outgoing) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = await self._producer.send(**arguments(self._settings, record))
        future.add_done_callback(_take_error)  # if a later one fails, nobody awaits this one
        return future

    def _verdict(self, error: BaseException) -> Fenced | LogUnavailable:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, _FENCING):
                return Fenced(f"{self._id} has a newer owner: {type(cause).__name__}")
            cause = cause.__cause__
        what = f"not done within {self._timeout_s:.0f} s" if isinstance(error, TimeoutError) else repr(error)
        return LogUnavailable(f"{self._id}: transaction failed: {what}")


def _take_error(future: asyncio.Future[Any]) -> None:
    if future.done() and not future.cancelled():
        future.exception()


def _take_errors(producer: AIOKafkaProducer) -> None:
    """Take the errors that aiokafka puts into futures which nobody awaits once a producer has failed.

    asyncio would report each of them as never retrieved, long after the failure itself was raised and handled.
    """
    if producer._txn_manager._transaction_waiter is not None:
        _take_error(producer._txn_manager._transaction_waiter)
    for batches in producer._message_accumulator._batches.values():
        for batch in batches:
            _take_error(batch._drain_waiter)
