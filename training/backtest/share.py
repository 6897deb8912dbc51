"""Membership in the consumer group of a shared backtest, on Kafka."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection, Iterable

from aiokafka import ConsumerRebalanceListener
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.errors import KafkaError

from ingest.contract.topics import FRAMES, FRAMES_LATE
from ingest.exceptions import LogUnavailable
from ingest.kafka import settings as kafka
from ingest.kafka.log import TopicPartition
from ingest.kafka.settings import KafkaSettings
from ingest.kafka.writer import start
from training.backtest.assignor import keeping_assignor


class GroupShare(ConsumerRebalanceListener):  # type: ignore[misc]
    """The partitions of ``frames`` and ``frames.late`` that the consumer group assigns to this process.

    The consumer is used for the assignment only: the frames are read with another consumer, from offsets that the
    backtest chooses. While the group rebalances, the process goes on reading its partition: if the group gives the
    partition to another process, the partition's transactional id fences off this process.
    """

    reading: TopicPartition | None = None
    """The partition that this process is reading. The group leaves the partition to this process."""

    def __init__(self, settings: KafkaSettings, client_id: str, group: str) -> None:
        self._settings = settings
        assignor = keeping_assignor(self._reading)
        self._consumer = kafka.consumer(settings, client_id, group=group, partition_assignment_strategy=(assignor,))
        self._assigned: frozenset[TopicPartition] = frozenset()
        self._rebalancing = False
        self._change = asyncio.Event()

    @contextlib.asynccontextmanager
    async def joined(self) -> AsyncIterator[GroupShare]:
        """Be a member of the consumer group in the ``with`` block. Raise LogUnavailable."""
        self._consumer.subscribe([self._settings.topic(one) for one in (FRAMES, FRAMES_LATE)], listener=self)
        await start(self._consumer, self._settings)
        try:
            yield self
        finally:
            await self._consumer.stop()

    @property
    def assigned(self) -> Collection[TopicPartition]:
        """The assigned partitions; while the consumer group rebalances, only the partition that is being read."""
        return self._assigned & {self.reading} if self._rebalancing else self._assigned

    async def changed(self, timeout_s: float) -> None:
        """Wait at most ``timeout_s`` seconds for the next change of the assigned partitions. Raise LogUnavailable."""
        try:
            self._consumer.pause(*self._consumer.assignment())
            await self._consumer.getmany(timeout_ms=0)  # tells the group that this member is alive
        except KafkaError as error:
            raise LogUnavailable(f"the group of the backtest cannot be followed: {error!r}") from error
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._change.wait(), timeout_s)
        self._change.clear()

    async def on_partitions_assigned(self, assigned: Iterable[KafkaPartition]) -> None:
        """Note the partitions that the group has assigned."""
        prefix = self._settings.prefix
        self._assigned = frozenset(TopicPartition(one.topic.removeprefix(prefix), one.partition) for one in assigned)
        self._rebalancing = False
        self._consumer.pause(*assigned)
        self._change.set()

    async def on_partitions_revoked(self, revoked: Iterable[KafkaPartition]) -> None:
        """Keep only the partition that is being read, until the group has assigned the partitions anew."""
        self._rebalancing = True
        self._change.set()

    def _reading(self) -> KafkaPartition | None:
        return self.reading and KafkaPartition(self._settings.topic(self.reading.topic), self.reading.partition)
