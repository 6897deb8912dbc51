"""Opening partitions so that it gets on, and is seen to: few at once, and the records read back are counted."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing

from ingest.kafka.log import Log, LogRecord, Outgoing, Position, TopicPartition, Writer

OPEN_AT_ONCE = 2
"""Reading back is work for one event loop: all at once would all end late, with their queues full meanwhile. Two, so
that one reads while the other waits for the broker; the log keeps as many readers."""


class CountingLog:
    """Another log, and how many records were read from it. Reading back state is movement to the watchdog."""

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
        """Leave the other log open: it is its owner's."""
