"""Follow a topic: poll it for new records, without a consumer group."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from ingest.kafka.log import Log, LogRecord, TopicPartition

POLL_S = 0.25
"""Pause between two polls of a follower, in seconds. A person who watches the output does not notice a delay of
``POLL_S``."""


class Follower:
    """A reader of a topic. Each call of ``new`` continues at the offset at which the previous call stopped.

    A follower begins at the present end of each partition, or with ``from_start`` at the first record, or with
    ``backlog`` this number of records before the end, or with ``since_ms`` at the first record that was written at
    this Unix time in ms or later. With ``partition``, a follower reads only this partition. A partition that is added
    or created again later is read from its first record.
    """

    def __init__(
        self,
        log: Log,
        topic: str,
        *,
        partition: int | None = None,
        from_start: bool = False,
        backlog: int = 0,
        since_ms: int | None = None,
    ) -> None:
        self._log, self._topic, self._partition = log, topic, partition
        self._from_start, self._backlog, self._since_ms = from_start, backlog, since_ms
        self._positions: dict[int, int] | None = None

    async def begin(self) -> dict[int, int]:
        """Determine and return the first offset to read in each partition.

        Without a call of ``begin``, the first call of ``new`` determines the first offsets. Raise LogUnavailable.
        """
        ask = self._log.beginnings if self._from_start else self._log.ends
        self._positions = dict(await ask(self._topic))
        if self._backlog:
            firsts = await self._log.beginnings(self._topic)
            self._positions = {p: max(firsts[p], end - self._backlog) for p, end in self._positions.items()}
        if self._since_ms is not None:
            for partition, end in self._positions.items():
                start = await self._log.offset_at(TopicPartition(self._topic, partition), self._since_ms)
                self._positions[partition] = min(start, end)
        return self._positions

    async def new(self) -> AsyncGenerator[LogRecord, None]:
        """Yield the records since the last call, partition by partition. Raise LogUnavailable."""
        positions = self._positions if self._positions is not None else await self.begin()
        for partition, end in (await self._log.ends(self._topic)).items():
            start = positions.get(partition, 0)
            start = start if start <= end else 0  # the topic was created again
            if start >= end or self._partition not in (None, partition):
                continue
            async with aclosing(self._log.read(self._topic, partition, start, end)) as records:
                async for record in records:
                    yield record
                    positions[partition] = record.offset + 1
            positions[partition] = end
