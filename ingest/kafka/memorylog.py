"""The log interface implemented in memory, for tests and for trying out rules."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Self

from ingest.contract.topics import TOPICS
from ingest.exceptions import Fenced, LogUnavailable
from ingest.kafka.log import LogRecord, Outgoing, Position, TopicPartition, require_size
from ingest.runtime.clock import Clock, SystemClock


class MemoryLog:
    """A Log that keeps its records in lists.

    Transactions are atomic because no other coroutine runs during a transaction.
    """

    def __init__(self, partitions: int = 4, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._counts = {name: t.partitions or partitions for name, t in TOPICS.items()}
        self._records: dict[TopicPartition, list[LogRecord]] = defaultdict(list)
        self._offsets: dict[tuple[str, TopicPartition], int] = {}
        self._owners: dict[str, _MemoryWriter] = {}
        self._beginnings: dict[TopicPartition, int] = defaultdict(int)
        self.members: dict[str, list[str]] = {}
        """Client ids of the members of each consumer group, for ``clients``."""

    async def __aenter__(self) -> Self:
        """Return the log, so that a test can use a MemoryLog in place of a KafkaLog."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Do nothing, so that a test can read the records after the context has ended."""

    def set_partitions(self, topic: str, partitions: int) -> None:
        """Change a topic's number of partitions."""
        self._counts[topic] = partitions

    def forget(self, tp: TopicPartition, before: int) -> None:
        """Delete the records before an offset, as retention does."""
        self._beginnings[tp] = max(before, self._beginnings[tp])

    def create_again(self, tp: TopicPartition) -> None:
        """Empty a partition, as if its topic was deleted and created again.

        Offsets that consumer groups committed remain.
        """
        del self._records[tp]
        self._beginnings.pop(tp, None)

    async def produce(self, record: Outgoing) -> Position:
        """Write one record and return its position."""
        self._require(record)
        return self._append(record)

    async def partitions(self) -> Mapping[str, int]:
        """Return the number of partitions of each topic."""
        return dict(self._counts)

    async def ends(self, topic: str) -> Mapping[int, int]:
        """Return, for each partition, the offset after the last record."""
        return {p: len(self._records[TopicPartition(topic, p)]) for p in range(self._count(topic))}

    async def settled_ends(self, topic: str, partitions: Sequence[int]) -> Mapping[int, int]:
        """Return the ends of the partitions without waiting, because a MemoryLog never has an open transaction."""
        ends = await self.ends(topic)
        return {partition: ends[partition] for partition in partitions}

    async def beginnings(self, topic: str) -> Mapping[int, int]:
        """Return, for each partition, the first offset that ``forget`` has not deleted."""
        return {p: self._beginnings[TopicPartition(topic, p)] for p in range(self._count(topic))}

    async def delete_before(self, tp: TopicPartition, offset: int) -> None:
        """Delete the records of a partition before an offset."""
        self._require_partition(*tp)
        self.forget(tp, offset)

    async def offset_at(self, tp: TopicPartition, at_ms: int) -> int:
        """Return the offset of the first record written at or after ``at_ms``, else the partition's end.

        ``at_ms`` is Unix time in ms.
        """
        records = self._records[tp][self._beginnings[tp] :]
        return next((r.offset for r in records if r.timestamp_ms >= at_ms), len(self._records[tp]))

    async def read(self, topic: str, partition: int, start: int, stop: int) -> AsyncGenerator[LogRecord, None]:
        """Yield the records with offsets from ``start`` up to but not including ``stop``."""
        self._require_partition(topic, partition)
        records = self._records[TopicPartition(topic, partition)]
        if stop > len(records):
            raise LogUnavailable(
                f"partition {topic}[{partition}] ends at offset {len(records)}: expected {stop} or more"
            )
        for record in records[max(start, self._beginnings[TopicPartition(topic, partition)]) : stop]:
            yield record

    async def committed(self, group: str, tp: TopicPartition) -> int | None:
        """Return the next offset that a group will read, None if the group has not committed."""
        return self._offsets.get((group, tp))

    async def clients(self, group: str) -> Sequence[str]:
        """Return the client ids that ``members`` holds for a group."""
        return self.members.get(group, [])

    async def writer(self, transactional_id: str) -> _MemoryWriter:
        """Open the writer for a transactional id and fence an older writer with this id."""
        writer = _MemoryWriter(self, transactional_id)
        self._owners[transactional_id] = writer
        return writer

    async def close(self) -> None:
        """Do nothing, so that a test can read the records after a service has closed the log."""

    def _count(self, topic: str) -> int:
        if topic not in self._counts:
            raise LogUnavailable(f"no topic {topic}")
        return self._counts[topic]

    def _require_partition(self, topic: str, partition: int) -> None:
        if partition >= self._count(topic):
            raise LogUnavailable(f"{topic} has no partition {partition}")

    def _require(self, record: Outgoing) -> None:
        require_size(record)
        self._require_partition(record.topic, record.partition)

    def _append(self, record: Outgoing) -> Position:
        records = self._records[TopicPartition(record.topic, record.partition)]
        position = Position(record.partition, len(records))
        stamp_ms = self._clock.now_ns() // 1_000_000
        records.append(LogRecord(record.topic, *position, record.key, record.value, dict(record.headers), stamp_ms))
        return position


class _MemoryWriter:
    def __init__(self, log: MemoryLog, transactional_id: str) -> None:
        self._log = log
        self.transactional_id = transactional_id

    async def write(self, records: Sequence[Outgoing], group: str, offsets: Mapping[TopicPartition, int]) -> None:
        """Write all records and offsets, or raise Fenced and write nothing."""
        if self._log._owners.get(self.transactional_id) is not self:
            raise Fenced(f"a newer process writes with the transactional id {self.transactional_id}")
        for record in records:
            self._log._require(record)
        for record in records:
            self._log._append(record)
        self._log._offsets |= {(group, tp): offset for tp, offset in offsets.items()}

    async def close(self) -> None:
        """Do nothing: a memory writer holds no connection."""
