"""Opening of partitions: the start position, the limit on concurrent openings, and the log that counts its reads."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing

from ingest.kafka.log import Log, LogRecord, Outgoing, Position, TopicPartition, Writer

OPEN_AT_ONCE = 2
"""Partitions that read back their state at once. One event loop does all the work, so many at once would all end
late, with full queues. With two, one reads while the other waits for the broker; the log keeps two readers."""


async def start_position(log: Log, group: str, tp: TopicPartition) -> int:
    """Return the committed offset of a group, or the first offset if it is later. Raise LogUnavailable."""
    committed = await log.committed(group, tp)
    first = (await log.beginnings(tp.topic))[tp.partition]
    return max(committed or 0, first)


class CountingLog:
    """A log that counts the records read from another log. To the watchdog, reading back state is progress."""

    def __init__(self, log: Log) -> None:
        self.records = 0
        self._log = log

    async def read(self, topic: str, partition: int, start: int, stop: int) -> AsyncGenerator[LogRecord, None]:
        """Yield the committed records from ``start`` up to but not including ``stop``. Raise LogUnavailable."""
        async with aclosing(self._log.read(topic, partition, start, stop)) as records:
            async for record in records:
                self.records += 1
                yield record

    async def produce(self, record: Outgoing) -> Position:
        """Write one record and return where. Raise LogUnavailable or Oversize."""
        return await self._log.produce(record)

    async def partitions(self) -> Mapping[str, int]:
        """Return the topics that exist and how many partitions each has."""
        return await self._log.partitions()

    async def ends(self, topic: str) -> Mapping[int, int]:
        """Return, per partition, the offset after the last committed record. Raise LogUnavailable."""
        return await self._log.ends(topic)

    async def settled_ends(self, topic: str, partitions: Sequence[int]) -> Mapping[int, int]:
        """Return the ends of partitions once the transactions that are open now are over. Raise LogUnavailable."""
        return await self._log.settled_ends(topic, partitions)

    async def beginnings(self, topic: str) -> Mapping[int, int]:
        """Return, per partition, the first offset that retention has left. Raise LogUnavailable."""
        return await self._log.beginnings(topic)

    async def committed(self, group: str, tp: TopicPartition) -> int | None:
        """Return the next offset that a group will read, None when it has committed none. Raise LogUnavailable."""
        return await self._log.committed(group, tp)

    async def writer(self, transactional_id: str) -> Writer:
        """Open the writer of this id. Raise LogUnavailable."""
        return await self._log.writer(transactional_id)

    async def close(self) -> None:
        """Leave the other log open: its owner closes it."""
