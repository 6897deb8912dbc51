"""Faust's Kafka driver, with the parts replaced that lose data or hide settings.

- Both clients come from ``ingest.kafka.settings``: the consumer reads committed records only (Faust asks for that
  only under ``exactly_once``), the producer is idempotent (Faust has no setting for it), and both share one set of
  limits.
- What is committed is what our own trackers say. Faust's bookkeeping is off by one (a first acknowledgement right
  after the committed offset commits past it), acknowledges records of an older generation that it skips, adds the
  record after a gap to the acknowledged ones before it was read, and never commits again when the partition's first
  record is followed by a gap of two.
- Where a partition is read from is what its own loop says (see ``fetching.py``), and no record is dropped because
  Faust has seen a later one: it keeps that of the assignment before.
- Fetching goes on at once when a partition has room again; Faust sleeps a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, ClassVar

from aiokafka import AIOKafkaProducer
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from ingest.kafka import settings as kafka
from ingest.kafka.settings import KafkaSettings
from stream.runner.faust.arrivals import Stamp
from stream.runner.faust.fetching import ConsumerThread, Stamped

POLL_S = 0.1
"""Longest wait for records of the partitions that are not paused: a partition that has room again waits so long."""
PAUSED_S = 1.0
"""Longest wait while all are paused, until aiokafka is told again that we are there."""


class Unread(dict[TP, int | None]):
    """What Faust has read of each partition: never anything, so that it drops no record as read before."""

    def __getitem__(self, tp: TP) -> int | None:
        return None

    def __setitem__(self, tp: TP, offset: int | None) -> None:
        pass


class Consumer(driver.Consumer):  # type: ignore[misc]
    """Commits what ``safe`` says, partition by partition, and nothing else."""

    safe: Callable[[TP], int | None]
    """Set by the runner: the next offset that a restart must read, None while that is not known."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._read_offset = Unread()
        self._room = asyncio.Event()

    def _new_consumer_thread(self) -> ConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def begin(self, tp: TP, position: int, run: int) -> bool:
        """Fetch a partition from a position, numbered as a new run. Return False if it has gone to another member."""
        return bool(await self._thread.begin(tp, position, run))

    def unfetched(self, tp: TP) -> int:
        """Return how many offsets the broker has for us beyond those that were handed over."""
        return int(self._thread.unfetched(tp))

    def on_the_way(self, tp: TP, due: Stamp) -> int:
        """Return how many records were fetched and have not arrived, when ``due`` is the next that should."""
        return max(0, int(self._thread.fetched(tp, due.run)) - due.number)

    def pause_fetching(self, tp: TP) -> None:
        """Fetch no more of a partition. What was fetched already still comes.

        Faust's own ``pause_partitions`` drops records between the fetch and the stream, and then commits past them.
        """
        self.on_buffer_full(tp)

    def resume_fetching(self, tp: TP) -> None:
        """Fetch a partition again."""
        self.on_buffer_drop(tp)
        self._room.set()

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Forget what was said about partitions that go away."""
        for tp in revoked:
            self._buffered_partitions.discard(tp)
        await super().on_partitions_revoked(revoked)

    async def perform_seek(self) -> None:
        """Leave every partition where its loop has put it."""

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Any]]:
        """Fetch what there is, without waiting longer than a paused partition may wait."""
        async for item in super().getmany(min(timeout, POLL_S)):
            yield item

    async def _wait_next_records(self, timeout: float) -> Any:
        while self.flow_active and not self.should_stop and not self._get_active_partitions():
            self._room.clear()
            await self._getmany(active_partitions=set(), timeout=0.0)
            await self.wait_first(self._room.wait(), self.suspend_flow.wait(), timeout=PAUSED_S)
        return await super()._wait_next_records(timeout)

    def _to_message(self, tp: TP, record: Stamped) -> Any:
        stamp, fetched = record
        message = super()._to_message(tp, fetched)
        message.stamp = stamp
        return message

    async def force_commit(self, topics: Iterable[Any] | None = None, start_new_transaction: bool = True) -> bool:
        """Commit what is safe and was not committed yet. Return True if there was something, and it is."""
        offsets = {tp: offset for tp in self.assignment() if (offset := self.safe(tp)) is not None}
        offsets = {tp: offset for tp, offset in offsets.items() if offset > (self._committed_offset[tp] or 0)}
        if not offsets or not await self._commit(offsets):
            return False
        self._committed_offset.update(offsets)
        return True

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Leave it to the watchdog to see what stands still."""


class _Producer(driver.Producer):  # type: ignore[misc]
    def _new_producer(self, transactional_id: str | None = None) -> AIOKafkaProducer:
        return kafka.producer(self.transport.settings, self.client_id, transactional_id=transactional_id)


class Transport(driver.Transport):  # type: ignore[misc]
    """The driver that an App of ours uses."""

    Consumer: ClassVar[type] = Consumer
    Producer: ClassVar[type] = _Producer

    def __init__(self, settings: KafkaSettings, instance: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.settings = settings
        self.instance = instance
