"""The log as a seam: what the cores need of Kafka, and no more.

Topics are named without the deployment's prefix. ``kafkalog`` beside this file has the real one, ``memorylog``
the one for tests of logic. Group membership is no part of the seam: shells that need it hold a consumer of their own.
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


class Position(NamedTuple):
    """Where a record was written."""

    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class LogRecord:
    """A record as it was read. ``timestamp_ms`` is Unix time in ms."""

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

    On a compacted topic an empty value takes its key out.
    """

    topic: str
    partition: int
    value: bytes
    key: bytes | None = None
    headers: Mapping[str, bytes] = field(default_factory=dict)


def require_size(record: Outgoing) -> None:
    """Raise Oversize if a record's value is larger than any topic takes."""
    if len(record.value) > MAX_RECORD_BYTES:
        raise Oversize(len(record.value), MAX_RECORD_BYTES)


class Writer(Protocol):
    """The only writer under one transactional id: opening another one fences this one."""

    async def write(self, records: Sequence[Outgoing], group: str, offsets: Mapping[TopicPartition, int]) -> None:
        """Write all records and the group's offsets (next to read), or nothing of it.

        Return when it is committed. Raise Fenced when a newer writer has this id, LogUnavailable when the broker
        did not answer; after either, and after a cancellation, the writer is of no further use but to be closed.
        Raise Oversize, having written nothing, when a record is too large.
        """
        ...

    async def close(self) -> None:
        """Abort what is open and let go. May be called twice."""
        ...


class Log(Protocol):
    """An ordered, partitioned log. All methods belong to one event loop; none blocks it."""

    async def produce(self, record: Outgoing) -> Position:
        """Write one record and return where, once every replica has it.

        Raise LogUnavailable when there is no such partition, or when the broker did not answer: then the record
        may have been written, or be written yet. Raise Oversize when it is too large.
        """
        ...

    async def partitions(self) -> Mapping[str, int]:
        """Return the topics that exist and how many partitions each has."""
        ...

    async def ends(self, topic: str) -> Mapping[int, int]:
        """Return, per partition, the offset after the last committed record. Raise LogUnavailable."""
        ...

    async def settled_ends(self, topic: str, partitions: Sequence[int]) -> Mapping[int, int]:
        """Return the ends of some partitions once every transaction that is open in them now is over.

        So that what was committed behind another writer's open transaction is seen too. Raise LogUnavailable when
        one stays open for too long.
        """
        ...

    async def beginnings(self, topic: str) -> Mapping[int, int]:
        """Return, per partition, the first offset that retention has left. Raise LogUnavailable."""
        ...

    def read(self, topic: str, partition: int, start: int, stop: int) -> AsyncGenerator[LogRecord, None]:
        """Yield the committed records from ``start`` up to but not including ``stop``, then end.

        Offsets that retention or an aborted transaction took are skipped. Raise LogUnavailable when there is no
        such partition, or when the broker stays silent before ``stop`` is reached. Whoever leaves early closes the
        generator (``contextlib.aclosing``), so that its connection goes with it.
        """
        ...

    async def committed(self, group: str, tp: TopicPartition) -> int | None:
        """Return the next offset that a group will read, None when it has committed none. Raise LogUnavailable."""
        ...

    async def writer(self, transactional_id: str) -> Writer:
        """Open the writer of this id: abort what an older one left open, and fence it. Raise LogUnavailable."""
        ...

    async def close(self) -> None:
        """Close the writers and let go of all connections. May be called twice."""
        ...
