"""The log interface: the part of Kafka that decision code needs.

Topic names here have no deployment prefix. ``kafkalog`` implements this interface on Kafka. ``memorylog`` implements
this interface in memory, for tests. Consumer groups are not part of the interface: a service that needs a group has
its own consumer.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from ingest.contract.codec import MAX_RECORD_BYTES
from ingest.exceptions import Oversize


class TopicPartition(NamedTuple):
    """One partition of one topic."""

    topic: str
    partition: int


class GroupCommit(NamedTuple):
    """The next offset that a consumer group will read, and the metadata text of the commit."""

    offset: int
    metadata: str = ""


class Position(NamedTuple):
    """The partition and offset of a written record."""

    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class LogRecord:
    """A record read from the log. ``timestamp_ms`` is Unix time in ms."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes
    headers: Mapping[str, bytes] = field(default_factory=dict)
    timestamp_ms: int = 0


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A record to write. The partition is always explicit.

    On a compacted topic an empty value is a tombstone, which deletes the key.
    """

    topic: str
    partition: int
    value: bytes
    key: bytes | None = None
    headers: Mapping[str, bytes] = field(default_factory=dict)


def require_size(record: Outgoing) -> None:
    """Raise Oversize if a record's value exceeds the largest limit of any topic."""
    if len(record.value) > MAX_RECORD_BYTES:
        raise Oversize(len(record.value), MAX_RECORD_BYTES)


class Writer(Protocol):
    """The only writer under one transactional id: opening a second writer with the same id fences the first."""

    async def write(self, records: Sequence[Outgoing], group: str, offsets: Mapping[TopicPartition, int]) -> None:
        """Write all records and the group's next offsets in one transaction, or write nothing.

        Return after the commit. Raise Fenced when a newer writer has this id, and LogUnavailable when the broker
        did not answer. After either error, and after a cancellation, only ``close`` may be called. Raise Oversize
        when a record is too large; then nothing was written.
        """

    async def close(self) -> None:
        """Abort the open transaction and release the id. A second call does nothing."""


class Log(Protocol):
    """An ordered, partitioned log. All methods must be called in the same event loop. No method blocks the loop."""

    async def produce(self, record: Outgoing) -> Position:
        """Write one record, and return its position once every replica has the record.

        Raise LogUnavailable when the partition does not exist or the broker did not answer. Without an answer, the
        record may have been written, or may still be written. Raise Oversize when the record is too large.
        """

    async def partitions(self) -> Mapping[str, int]:
        """Return the number of partitions of each topic that exists."""

    async def ends(self, topic: str) -> Mapping[int, int]:
        """Return, by partition, the offset after the last committed record. Raise LogUnavailable."""

    async def settled_ends(self, topic: str, partitions: Sequence[int]) -> Mapping[int, int]:
        """Wait until every transaction now open in these partitions has ended. Return their ends.

        The ends then include records that were committed after another writer's open transaction. Raise
        LogUnavailable when a transaction stays open for too long.
        """

    async def beginnings(self, topic: str) -> Mapping[int, int]:
        """Return, by partition, the first offset that retention has not deleted. Raise LogUnavailable."""

    async def offset_at(self, tp: TopicPartition, at_ms: int) -> int:
        """Return the offset of the first record written at that Unix time or later, the end if no record is.

        Raise LogUnavailable.
        """

    def read(self, topic: str, partition: int, start: int, stop: int) -> AsyncGenerator[LogRecord, None]:
        """Yield the committed records from ``start`` up to but not including ``stop``, then end.

        Offsets of deleted records and of aborted transactions are skipped. Raise LogUnavailable when the partition
        does not exist, or when the broker stays silent before ``stop`` is reached. A caller that leaves early
        closes the generator (``contextlib.aclosing``), which releases its connection.
        """

    async def committed(self, group: str, tp: TopicPartition) -> int | None:
        """Return the next offset that a group will read, None without a commit. Raise LogUnavailable."""

    async def writer(self, transactional_id: str) -> Writer:
        """Open the writer of this transactional id. Fence an older writer and abort its transaction. Raise
        LogUnavailable."""

    async def close(self) -> None:
        """Close all writers and connections. A second call does nothing."""
