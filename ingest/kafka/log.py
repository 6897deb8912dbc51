"""The log interface: the functions of Kafka that this project's services use.

In this interface, topic names have no deployment prefix. ``kafkalog`` implements this interface on Kafka.
``memorylog`` implements this interface in memory, for tests. Consumer groups are not part of the interface: a service
that needs a group has its own consumer.
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


@dataclass(slots=True)
class LogRecord:
    """A record read from the log, never changed. ``timestamp_ms`` is the Unix time in ms at which the broker appended
    the record.

    The class is not frozen, because creating a frozen object takes three times as long, for each record read.
    """

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes
    headers: Mapping[str, bytes] = field(default_factory=dict)
    timestamp_ms: int = 0


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A record to write. The caller always chooses the partition.

    On a compacted topic an empty value is a tombstone, which deletes the key.
    """

    topic: str
    partition: int
    value: bytes
    key: bytes | None = None
    headers: Mapping[str, bytes] = field(default_factory=dict)


def require_size(record: Outgoing) -> None:
    """Raise Oversize if a record's value exceeds ``MAX_RECORD_BYTES``."""
    if len(record.value) > MAX_RECORD_BYTES:
        raise Oversize(len(record.value), MAX_RECORD_BYTES)


class Writer(Protocol):
    """A writer of transactions.

    Only one writer can use a transactional id: opening a second writer with the same id fences the first writer.
    """

    async def write(self, records: Sequence[Outgoing], group: str, offsets: Mapping[TopicPartition, int]) -> None:
        """Write all records and commit the group's next offsets in one transaction, or write nothing.

        Return after the transaction is committed. Raise Fenced when a newer writer has the same transactional id, and
        LogUnavailable when the broker does not respond. After Fenced, LogUnavailable or a cancellation, the caller
        may only call ``close``. Raise Oversize and write nothing when a record is too large.
        """

    async def close(self) -> None:
        """Abort the open transaction and release the transactional id. A second call does nothing."""


class Log(Protocol):
    """An ordered, partitioned log.

    All methods must be called in the same event loop. No method blocks the event loop.
    """

    async def produce(self, record: Outgoing) -> Position:
        """Write one record, and return its position once every replica has the record.

        Raise LogUnavailable when the partition does not exist or the broker does not respond. If the broker does not
        respond, the record may have been written, or may still be written. Raise Oversize when the record is too
        large.
        """

    async def partitions(self) -> Mapping[str, int]:
        """Return the number of partitions of each topic that exists."""

    async def ends(self, topic: str) -> Mapping[int, int]:
        """Return the offset after the last committed record of each partition. Raise LogUnavailable."""

    async def settled_ends(self, topic: str, partitions: Sequence[int]) -> Mapping[int, int]:
        """Wait until all transactions that are open now have ended, then return the end of each partition.

        Without the wait, the open transaction of another writer may hide committed records behind the returned end.
        Raise LogUnavailable when a transaction stays open for too long.
        """

    async def beginnings(self, topic: str) -> Mapping[int, int]:
        """Return, for each partition, the first offset that retention has not deleted. Raise LogUnavailable."""

    async def delete_before(self, tp: TopicPartition, offset: int) -> None:
        """Delete the records of a partition before an offset, so that no reader gets them any more.

        The broker frees disk space only segment by segment: a segment file is removed when all its records are
        deleted. Raise LogUnavailable.
        """

    async def offset_at(self, tp: TopicPartition, at_ms: int) -> int:
        """Return the offset of the first record written at or after ``at_ms``, else the partition's end.

        ``at_ms`` is Unix time in ms. Raise LogUnavailable.
        """

    def read(self, topic: str, partition: int, start: int, stop: int) -> AsyncGenerator[LogRecord, None]:
        """Yield the committed records with offsets from ``start`` up to but not including ``stop``.

        Offsets of deleted records and of aborted transactions are skipped. Raise LogUnavailable when the partition
        does not exist, or when the broker stops sending records before ``stop`` is reached. A caller that stops early
        must close the generator (``contextlib.aclosing``) to release its connection.
        """

    async def committed(self, group: str, tp: TopicPartition) -> int | None:
        """Return the next offset that a group will read, None if the group has not committed.

        Raise LogUnavailable.
        """

    async def clients(self, group: str) -> Sequence[str]:
        """Return the client ids of a consumer group's members. Raise LogUnavailable."""

    async def writer(self, transactional_id: str) -> Writer:
        """Open the writer for a transactional id.

        Fence an older writer with this id and abort its transaction. Raise LogUnavailable.
        """

    async def close(self) -> None:
        """Close all writers and connections. A second call does nothing."""
