"""The log interface implemented on Kafka."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Self, TypeVar

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from aiokafka.errors import KafkaError
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.structs import ConsumerRecord

from ingest.exceptions import LogUnavailable
from ingest.kafka import settings as kafka
from ingest.kafka.log import GroupCommit, LogRecord, Outgoing, Position, TopicPartition
from ingest.kafka.settings import KafkaSettings
from ingest.kafka.writer import FLUSH_S, KafkaWriter, arguments, require_writable, start, stop
from ingest.runtime.clock import Deadline

T = TypeVar("T")
C = TypeVar("C")

TIMEOUT_S = 30.0
"""Time without a response from the broker after which a call raises LogUnavailable, in seconds. This timeout is
longer than a broker's restart."""
_POLL_MS = 500
"""Longest time that one poll waits for records, in ms. The wait is short enough to notice a deadline in time, and
long enough that polls cost little."""
_IDLE_READERS = 2
"""Maximum number of idle consumers kept between reads. Two idle consumers are enough, because no caller runs many
reads at once: the alert service reads one frame after another."""
_RETRY_PAUSE_S = 0.1
"""Pause before a request is repeated while the broker is still loading its data, in seconds. A restarted broker loads
its data in about a second."""


def from_consumer(settings: KafkaSettings, record: ConsumerRecord[bytes, bytes]) -> LogRecord:
    """Convert a record of aiokafka.

    Remove the prefix from the topic's name, and make a missing value an empty value.
    """
    return LogRecord(
        record.topic.removeprefix(settings.prefix),
        record.partition,
        record.offset,
        record.key,
        record.value or b"",
        {name: value or b"" for name, value in record.headers} if record.headers else {},
        record.timestamp,
    )


class KafkaLog:
    """A Log on an Apache Kafka cluster. The log is an asynchronous context manager, which closes the log at the end.

    Clients are started when first needed and stopped by ``close``.
    """

    def __init__(self, settings: KafkaSettings, client_id: str, timeout_s: float = TIMEOUT_S) -> None:
        self.settings = settings
        self._client_id = client_id
        self._timeout_s = timeout_s
        self._clients: dict[Callable[..., Any], Any] = {}
        """The started clients, by the function that creates the client: one producer, one consumer for offsets, one
        admin client."""
        self._starting = asyncio.Lock()
        self._writers: set[KafkaWriter] = set()
        self._idle: list[AIOKafkaConsumer] = []
        self._closed = False

    async def __aenter__(self) -> Self:
        """Return the log. Each client connects when first used."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop every client."""
        await self.close()

    async def produce(self, record: Outgoing) -> Position:
        """Write one record, and return its position once every replica has the record.

        Raise LogUnavailable, Oversize.
        """
        producer = await self._started(kafka.producer)
        await self._require_writable(producer, record)
        try:
            meta = await self._acknowledged(producer.send_and_wait(**arguments(self.settings, record)))
        except (KafkaError, TimeoutError) as error:
            raise LogUnavailable(
                f"partition {record.topic}[{record.partition}]: Kafka acknowledged no record within "
                f"{self._timeout_s:.0f} s ({error!r}). Kafka may have written the record nevertheless"
            ) from error
        return Position(meta.partition, meta.offset)

    async def partitions(self) -> Mapping[str, int]:
        """Return the number of partitions of each topic whose name begins with the deployment's prefix.

        Raise LogUnavailable.
        """
        # Describe all topics: on brokers that allow it, describing a missing topic by name creates it.
        described = await self._ask("topics", lambda admin: admin.describe_topics())
        return {
            t["topic"].removeprefix(self.settings.prefix): len(t["partitions"])
            for t in described
            if t["topic"].startswith(self.settings.prefix)
        }

    async def ends(self, topic: str) -> Mapping[int, int]:
        """Return the last stable offset of each partition.

        A read up to the last stable offset completes even while a transaction is open.
        """
        reader, parts = await self._partitions_of(topic)
        return await _offsets(reader.end_offsets, parts)

    async def settled_ends(self, topic: str, partitions: Sequence[int]) -> Mapping[int, int]:
        """Wait until all transactions that are open now have ended, then return the end of each partition.

        Raise LogUnavailable.
        """
        _, parts = await self._partitions_of(topic)
        wanted = [kafka_tp for kafka_tp in parts if kafka_tp.partition in set(partitions)]
        raw = kafka.consumer(self.settings, self._client_id, isolation_level="read_uncommitted")
        await start(raw, self.settings)
        try:
            highs = await _offsets(raw.end_offsets, wanted)
        finally:
            await raw.stop()
        deadline = Deadline.after(self._timeout_s)
        while True:
            ends = await _offsets((await self._started(kafka.consumer)).end_offsets, wanted)
            if all(ends[partition] >= high for partition, high in highs.items()):
                return ends
            if deadline.passed:
                raise LogUnavailable(
                    f"topic {topic}: a transaction has been open for {self._timeout_s:.0f} s: restart the service "
                    "that writes to the topic"
                )
            await asyncio.sleep(_RETRY_PAUSE_S)

    async def beginnings(self, topic: str) -> Mapping[int, int]:
        """Return, for each partition, the first offset that retention has not deleted. Raise LogUnavailable."""
        reader, parts = await self._partitions_of(topic)
        return await _offsets(reader.beginning_offsets, parts)

    async def delete_before(self, tp: TopicPartition, offset: int) -> None:
        """Delete the records of a partition before an offset. Raise LogUnavailable."""
        await self._require(*tp)
        kafka_tp = KafkaPartition(self.settings.topic(tp.topic), tp.partition)

        async def request(admin: AIOKafkaAdminClient) -> bool:
            await admin.delete_records({kafka_tp: RecordsToDelete(offset)})
            return True

        await self._ask(f"the deletion of records of {kafka_tp.topic}[{tp.partition}]", request)

    async def offset_at(self, tp: TopicPartition, at_ms: int) -> int:
        """Return the offset of the first record written at or after ``at_ms``, else the partition's end.

        ``at_ms`` is Unix time in ms.
        """
        await self._require(*tp)
        kafka_tp = KafkaPartition(self.settings.topic(tp.topic), tp.partition)
        try:
            found = (await (await self._started(kafka.consumer)).offsets_for_times({kafka_tp: at_ms}))[kafka_tp]
        except KafkaError as error:
            raise LogUnavailable(
                f"topic {kafka_tp.topic}: the offset of the first record after a time cannot be read: {error!r}"
            ) from error
        return found.offset if found else (await self.ends(tp.topic))[tp.partition]

    async def read(self, topic: str, partition: int, start: int, stop: int) -> AsyncGenerator[LogRecord, None]:
        """Yield the committed records from ``start`` up to but not including ``stop``. Raise LogUnavailable."""
        await self._require(topic, partition)
        if start >= stop:
            return
        kafka_tp = KafkaPartition(self.settings.topic(topic), partition)
        consumer = self._idle.pop() if self._idle else await self._new(kafka.consumer)
        complete = False
        try:
            consumer.assign([kafka_tp])
            consumer.seek(kafka_tp, start)
            deadline = Deadline.after(self._timeout_s)
            while await consumer.position(kafka_tp) < stop:
                records = (await consumer.getmany(kafka_tp, timeout_ms=_POLL_MS)).get(kafka_tp, [])
                for record in records:
                    if record.offset >= stop:
                        complete = True
                        return
                    yield from_consumer(self.settings, record)
                if records:
                    deadline = Deadline.after(self._timeout_s)
                elif deadline.passed:
                    raise LogUnavailable(
                        f"partition {kafka_tp.topic}[{partition}] delivered no record for {self._timeout_s:.0f} s: "
                        f"expected records up to offset {stop}"
                    )
            complete = True
        except KafkaError as error:
            raise LogUnavailable(f"partition {kafka_tp.topic}[{partition}] cannot be read: {error!r}") from error
        finally:
            await self._give_back(consumer, complete)

    async def committed(self, group: str, tp: TopicPartition) -> int | None:
        """Return the next offset that a group will read, None if the group has not committed.

        Raise LogUnavailable.
        """
        commit = await self.commit_of(group, tp)
        return commit.offset if commit else None

    async def commit_of(self, group: str, tp: TopicPartition) -> GroupCommit | None:
        """Return a group's committed offset with its metadata, None if the group has not committed.

        Raise LogUnavailable.
        """
        kafka_tp = KafkaPartition(self.settings.topic(tp.topic), tp.partition)

        async def question(admin: AIOKafkaAdminClient) -> GroupCommit | None:
            found = await admin.list_consumer_group_offsets(self.settings.group(group), partitions=[kafka_tp])
            # A coordinator that is still loading leaves the partition out of its answer; -1 means no commit. Taking
            # one for the other would send a node back to the beginning of its topic.
            return GroupCommit(found[kafka_tp].offset, found[kafka_tp].metadata or "") if kafka_tp in found else None

        commit = await self._ask(f"offsets of {self.settings.group(group)}", question)
        return commit if commit.offset >= 0 else None

    async def members(self, group: str) -> Sequence[tuple[str, int]] | None:
        """Return (client id, number of partitions) of each member of a group; None while the group rebalances.

        Raise LogUnavailable.
        """
        state, members = await self._described(group)
        if state not in ("Stable", "Empty", "Dead"):
            return None
        return [(client_id, _held(assignment)) for _, client_id, _, _, assignment in members]

    async def clients(self, group: str) -> Sequence[str]:
        """Return the client ids of a consumer group's members, even while the group rebalances.

        Raise LogUnavailable.
        """
        _, members = await self._described(group)
        return [client_id for _, client_id, *_ in members]

    async def writer(self, transactional_id: str) -> KafkaWriter:
        """Open the writer for a transactional id.

        Fence an older writer with this id and abort its transaction. Raise LogUnavailable.
        """
        writer = KafkaWriter(self.settings, self._client_id, transactional_id, self._timeout_s)
        await writer.open()
        self._writers = {w for w in self._writers if not w.closed} | {writer}
        return writer

    async def close(self) -> None:
        """Stop every client. A second call does nothing."""
        self._closed = True
        while self._idle:
            await self._idle.pop().stop()
        for writer in self._writers:
            await writer.close()
        if kafka.producer in self._clients:
            await stop(self._clients.pop(kafka.producer), min(FLUSH_S, self._timeout_s))
        if kafka.consumer in self._clients:
            await self._clients.pop(kafka.consumer).stop()
        if kafka.admin in self._clients:
            await self._clients.pop(kafka.admin).close()

    async def _require_writable(self, producer: AIOKafkaProducer, record: Outgoing) -> None:
        await require_writable(producer, self.settings, [record])

    async def _acknowledged(self, sent: Awaitable[T]) -> T:
        """Wait for the acknowledgement of a record. Raise TimeoutError after ``timeout_s``."""
        async with asyncio.timeout(self._timeout_s):
            return await sent

    async def _described(self, group: str) -> tuple[str, Sequence[tuple[Any, ...]]]:
        """Return the state of a consumer group, and its members as the broker describes them."""
        name = self.settings.group(group)

        async def question(admin: AIOKafkaAdminClient) -> tuple[str, Sequence[tuple[Any, ...]]] | None:
            ((found,),) = [response.groups for response in await admin.describe_consumer_groups([name])]
            code, _, state, _, _, members, *_ = found
            return None if code else (state, members)

        return await self._ask(f"members of {name}", question)

    async def _ask(self, subject: str, question: Callable[[AIOKafkaAdminClient], Awaitable[T | None]]) -> T:
        """Repeat a request to the broker until the response is not None. Raise LogUnavailable after the timeout."""
        deadline = Deadline.after(self._timeout_s)
        while True:
            problem: object = "the broker is still loading"
            admin = await self._started(kafka.admin)
            try:
                answer = await question(admin)
                if answer is not None:
                    return answer
            except KafkaError as error:
                problem = repr(error)
            if deadline.passed:
                raise LogUnavailable(f"{self.settings.bootstrap} did not return {subject}: {problem}")
            await asyncio.sleep(_RETRY_PAUSE_S)

    async def _new(self, make: Callable[[KafkaSettings, str], C]) -> C:
        client = make(self.settings, self._client_id)
        await start(client, self.settings)
        return client

    async def _started(self, make: Callable[[KafkaSettings, str], C]) -> C:
        """Return the client of the kind that ``make`` creates. The first call creates and starts the client."""
        async with self._starting:
            if make not in self._clients:
                self._clients[make] = await self._new(make)
            client: C = self._clients[make]
            return client

    async def _give_back(self, consumer: AIOKafkaConsumer, complete: bool) -> None:
        """Keep a consumer whose read completed, so that the next read needs no new connection.

        Stop a consumer whose read did not complete.
        """
        if complete and not self._closed and len(self._idle) < _IDLE_READERS:
            consumer.pause(*consumer.assignment())
            self._idle.append(consumer)
        else:
            await consumer.stop()

    async def _partitions_of(self, topic: str) -> tuple[AIOKafkaConsumer, list[KafkaPartition]]:
        count = await self._require(topic)
        name = self.settings.topic(topic)
        return await self._started(kafka.consumer), [KafkaPartition(name, p) for p in range(count)]

    async def _require(self, topic: str, partition: int = 0) -> int:
        """Return the number of a topic's partitions.

        Raise LogUnavailable if the topic has no partition ``partition``.
        """
        name = self.settings.topic(topic)
        request = MetadataRequest([name], allow_auto_topic_creation=False)  # describe_topics([name]) may create it
        response = await self._ask(f"topic {name}", lambda admin: admin._send_request(request))
        count = len(response.to_object()["topics"][0]["partitions"])
        if not count:
            raise LogUnavailable(
                f"Kafka shows no topic {name}: run `sightline topics create`, or allow this user to describe topics"
            )
        if partition >= count:
            raise LogUnavailable(f"topic {name} has no partition {partition}: expected one of {count} partitions")
        return count


def _held(assignment: bytes) -> int:
    """Return the number of partitions in a member's assignment."""
    return len(ConsumerProtocolMemberAssignment.decode(assignment).partitions()) if assignment else 0


async def _offsets(
    ask: Callable[[list[KafkaPartition]], Awaitable[Mapping[KafkaPartition, int]]], parts: list[KafkaPartition]
) -> dict[int, int]:
    try:
        return {kafka_tp.partition: offset for kafka_tp, offset in (await ask(parts)).items()}
    except KafkaError as error:
        raise LogUnavailable(f"the offsets of topic {parts[0].topic} cannot be read: {error!r}") from error
