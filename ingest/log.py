"""The log as a seam: what the cores need of Kafka, and no more.

Topics are named without the deployment's prefix. ``ingest.kafkalog`` has the real one, ``ingest.memorylog`` the one
for tests of logic. Group membership is no part of the seam: shells that need it hold a consumer of their own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

__all__ = ["Log", "LogRecord", "Outgoing", "Position", "Slot", "Writer"]


class Slot(NamedTuple):
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
    """A record to write. The partition is always explicit."""

    topic: str
    partition: int
    value: bytes
    key: bytes | None = None
    headers: Mapping[str, bytes] = field(default_factory=dict)


class Writer(Protocol):
    """The only writer under one transactional id: opening another one fences this one."""

    async def write(self, records: Sequence[Outgoing], group: str, offsets: Mapping[Slot, int]) -> None:
        """Write all records and the group's offsets (next to read), or nothing of it.

        Return when it is committed. Raise Fenced when a newer writer has this id, LogUnavailable when the broker
        did not answer; after either the writer is of no further use.
        """
        ...

    async def close(self) -> None:
        """Abort what is open and let go. May be called twice."""
        ...


class Log(Protocol):
    """An ordered, partitioned log. All methods belong to one event loop; none blocks it."""

    async def produce(self, record: Outgoing) -> Position:
        """Write one record and return where, once every replica has it. Raise LogUnavailable."""
        ...

    async def partitions(self) -> Mapping[str, int]:
        """Return the topics that exist and how many partitions each has."""
        ...

    async def ends(self, topic: str) -> Mapping[int, int]:
        """Return, per partition, the offset after the last committed record. Raise LogUnavailable."""
        ...

    async def beginnings(self, topic: str) -> Mapping[int, int]:
        """Return, per partition, the first offset that retention has left. Raise LogUnavailable."""
        ...

    def read(self, topic: str, partition: int, start: int, stop: int) -> AsyncIterator[LogRecord]:
        """Yield the committed records from ``start`` up to but not including ``stop``, then end.

        Offsets that retention or an aborted transaction took are skipped. Raise LogUnavailable when the broker
        stays silent before ``stop`` is reached.
        """
        ...

    async def committed(self, group: str, slot: Slot) -> int | None:
        """Return the next offset that a group will read, None when it has committed none."""
        ...

    async def writer(self, transactional_id: str) -> Writer:
        """Open the writer of this id: abort what an older one left open, and fence it."""
        ...

    async def close(self) -> None:
        """Let go of all connections."""
        ...
