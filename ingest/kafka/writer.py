"""Writing to Kafka: checks before a record is sent, transactions, and stopping a producer within a time limit."""

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
"""Time after which an unknown topic counts as missing, in seconds. Every broker knows a new topic within 1 s."""
FLUSH_S = 5.0
"""Time limit for a producer to send its buffered records when it is stopped, in seconds. Five seconds are enough for
a short stall of the broker, but not for a broker's restart."""

_FENCING = (ProducerFenced, InvalidProducerEpoch, InvalidProducerIdMapping, InvalidTxnState, OutOfOrderSequenceNumber)
"""Errors that a broker returns to a producer that was fenced by a newer producer. Which error the broker returns
depends on the kind of the request."""


async def start(client: Any, settings: KafkaSettings) -> None:
    """Start a producer, consumer or admin client. Raise LogUnavailable if there is no Kafka at the address."""
    try:
        await client.start()
    except BaseException as error:
        await (client.close if hasattr(client, "close") else client.stop)()
        if not isinstance(error, KafkaError):
            raise  # a cancelled start must not leave a connection open
        raise LogUnavailable(
            f"no Kafka at {settings.bootstrap} ({error!r}): start one with `sightline kafka start`, "
            "or pass an address with --kafka or SIGHTLINE_KAFKA"
        ) from error


async def stop(producer: AIOKafkaProducer, flush_s: float = FLUSH_S) -> None:
    """Stop a producer.

    Buffered records that the broker does not accept within ``flush_s`` fail with KafkaTimeoutError.
    """
    try:
        async with asyncio.timeout(flush_s):
            await producer.flush()
    except TimeoutError:
        # An idempotent producer never gives up: `producer.stop` would wait until the broker is back.
        await producer._sender.close()
        producer._message_accumulator.fail_all(KafkaTimeoutError("the producer was stopped"))
        _retrieve_errors(producer)
    await producer.stop()


async def require_writable(producer: AIOKafkaProducer, settings: KafkaSettings, records: Iterable[Outgoing]) -> None:
    """Raise LogUnavailable if a record's partition does not exist, Oversize if a record is too large."""
    partitions = set()
    for record in records:
        require_size(record)
        partitions.add((record.topic, record.partition))
    for topic, partition in partitions:
        name = settings.topic(topic)
        try:
            async with asyncio.timeout(UNKNOWN_TOPIC_S):
                known = await producer.partitions_for(name)
                if partition not in known:  # it may be newer than the producer's metadata
                    await producer.client.force_metadata_update()
                    known = await producer.partitions_for(name)
        except (TimeoutError, KafkaError) as error:
            raise LogUnavailable(f"Kafka has no topic {name}: run `sightline topics create`") from error
        if partition not in known:
            raise LogUnavailable(f"topic {name} has no partition {partition}: expected one of {sorted(known)}")


def arguments(settings: KafkaSettings, record: Outgoing) -> dict[str, Any]:
    """Return the arguments of aiokafka's ``send`` for a record.

    An empty value with a key becomes a tombstone, which deletes the key in a compacted topic.
    """
    return {
        "topic": settings.topic(record.topic),
        "value": record.value if record.value or record.key is None else None,
        "key": record.key,
        "partition": record.partition,
        "headers": list(record.headers.items()),
    }


class KafkaWriter:
    """A transactional producer. A writer runs one transaction at a time.

    After a failed transaction, the caller may only call ``close``.
    """

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
        """Fence an older writer with the same transactional id and abort its transaction. Raise LogUnavailable."""
        try:
            async with asyncio.timeout(self._timeout_s):
                await start(self._producer, self._settings)
        except TimeoutError as error:  # aiokafka requests its producer id without a time limit
            raise LogUnavailable(
                f"the producer with the transactional id {self._id} did not start within {self._timeout_s:.0f} s"
            ) from error

    async def write(self, records: Sequence[Outgoing], group: str, offsets: Mapping[TopicPartition, int]) -> None:
        """Write all records and commit the group's offsets in one transaction.

        Raise Fenced, LogUnavailable or Oversize.
        """
        if self._failed is not None:
            raise type(self._failed)(str(self._failed))
        await require_writable(self._producer, self._settings, records)
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._transaction(records, group, offsets)
        except BaseException as error:
            self._failed = self._failure(error)
            _retrieve_errors(self._producer)
            if isinstance(error, Exception):
                raise self._failed from error
            raise  # cancelled: `close` aborts the open transaction

    async def close(self) -> None:
        """Abort the open transaction and stop the producer. A second call does nothing."""
        if self.closed:
            return
        self.closed = True
        if self._in_transaction and not isinstance(self._failed, Fenced):
            # aiokafka raises AssertionError when there is nothing to abort.
            with contextlib.suppress(KafkaError, AssertionError, TimeoutError):
                async with asyncio.timeout(self._flush_s):
                    await self._producer.abort_transaction()
        await stop(self._producer, self._flush_s)
        _retrieve_errors(self._producer)

    async def _transaction(
        self, records: Sequence[Outgoing], group: str, offsets: Mapping[TopicPartition, int]
    ) -> None:
        positions = {KafkaPartition(self._settings.topic(s.topic), s.partition): o for s, o in offsets.items()}
        await self._producer.begin_transaction()
        self._in_transaction = True
        sent = [await self._send(record) for record in records]
        # Without this wait, aiokafka would commit although some sends failed. If the offsets are sent before the
        # records are acknowledged, one of twenty transactions waits 50 ms longer: decision 6.
        await asyncio.gather(*sent)
        if positions:
            await self._producer.send_offsets_to_transaction(positions, self._settings.group(group))
        await self._producer.commit_transaction()
        self._in_transaction = False

    async def _send(self, record: Outgoing) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = await self._producer.send(**arguments(self._settings, record))
        future.add_done_callback(_retrieve_error)  # nobody awaits this one if a later send fails
        return future

    def _failure(self, error: BaseException) -> Fenced | LogUnavailable:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, _FENCING):
                return Fenced(f"transactional id {self._id} has a newer owner: {type(cause).__name__}")
            cause = cause.__cause__
        reason = f"not committed within {self._timeout_s:.0f} s" if isinstance(error, TimeoutError) else repr(error)
        return LogUnavailable(f"{self._id}: transaction failed: {reason}")


def _retrieve_error(future: asyncio.Future[Any]) -> None:
    if future.done() and not future.cancelled():
        future.exception()


def _retrieve_errors(producer: AIOKafkaProducer) -> None:
    """Retrieve the errors in futures that nobody awaits after a producer has failed.

    If nobody retrieves the errors, asyncio logs each one as "never retrieved" long after the failure was handled.
    """
    if producer._txn_manager._transaction_waiter is not None:
        _retrieve_error(producer._txn_manager._transaction_waiter)
    for batches in producer._message_accumulator._batches.values():
        for batch in batches:
            _retrieve_error(batch._drain_waiter)
