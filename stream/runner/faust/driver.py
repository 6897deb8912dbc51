"""Faust's Kafka driver, with replacements for the parts that lose data or hide settings.

Clients: ``ingest.kafka.settings`` creates the consumer and the producer, with the limits of the project's other Kafka
clients. The consumer reads only records of committed transactions; Faust would set this isolation level only under
``exactly_once``. The producer is idempotent, for which Faust has no setting.

Commits: the committed offsets come from the trackers of the partitions, because Faust's own bookkeeping has four
errors. If the record at the committed offset is not acknowledged but the next record is, Faust commits past the
unacknowledged record. Faust skips records of an older consumer group generation, but acknowledges the skipped
records. Faust counts the first record after an offset gap as acknowledged before the record was read. If a gap of two
offsets follows the first record of a partition, Faust never commits again.

Start positions: the loop of each partition sets the partition's start position (see ``fetching.py``). Faust remembers
the last read offset of the previous assignment and drops records below this offset; this driver prevents the drop.

Pauses: fetching continues at once when the queue of a partition has room again, while unchanged Faust would sleep for
a second.

Fetches: this driver waits for one future per fetch. Unchanged Faust creates about ten asyncio tasks for each fetch,
which take longer than the fetch itself while each fetch returns only one frame.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any, ClassVar

from aiokafka import AIOKafkaProducer
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from ingest.kafka import settings as kafka
from ingest.kafka.log import TopicPartition
from ingest.kafka.settings import KafkaSettings
from stream.runner.acks import FetchNumber
from stream.runner.faust.fetching import ConsumerThread, FetchedChunk

POLL_S = 0.1
"""Maximum time in seconds that one fetch waits for records. A partition that is resumed during a fetch is fetched
only after the fetch has ended."""
PAUSED_S = 1.0
"""Maximum time in seconds between two calls that tell aiokafka that the member is alive while all partitions are
paused."""


class NoReadOffsets(dict[TP, int | None]):
    """A map that stays empty, in place of Faust's map of read offsets.

    Faust would drop a record whose offset is below the partition's offset in Faust's map.
    """

    def __getitem__(self, tp: TP) -> int | None:
        return None

    def __setitem__(self, tp: TP, offset: int | None) -> None:
        pass


class Consumer(driver.Consumer):  # type: ignore[misc]
    """A consumer that commits only the safe position of each partition: the offset before which all records are
    finished."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._read_offset = NoReadOffsets()
        self._room = asyncio.Event()

    def _new_consumer_thread(self) -> ConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def begin(self, tp: TP, position: int, assignment: int) -> bool:
        """Begin to fetch a partition at a position. Return False if another member now owns the partition."""
        return bool(await self._thread.begin(tp, position, assignment))

    def undelivered(self, tp: TP, due: FetchNumber) -> int:
        """Return how many records have not reached the partition's loop: records at the broker, and fetched records
        that are still inside Faust.

        ``due`` is the number of the next record that the loop expects.
        """
        on_the_way = max(0, int(self._thread.fetched(tp, due.assignment)) - due.number)
        return int(self._thread.unfetched(tp)) + on_the_way

    def pause_fetching(self, tp: TP) -> None:
        """Stop fetching a partition. Records that are already fetched are still delivered.

        Faust's own ``pause_partitions`` drops records that are fetched but have not reached the stream, and then
        commits past the dropped records.
        """
        self.on_buffer_full(tp)

    def resume_fetching(self, tp: TP) -> None:
        """Fetch a partition again."""
        self.on_buffer_drop(tp)
        self._room.set()

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Stop counting revoked partitions as paused."""
        for tp in revoked:
            self._buffered_partitions.discard(tp)
        await super().on_partitions_revoked(revoked)

    async def perform_seek(self) -> None:
        """Do nothing, so that every partition keeps the position that its loop has set."""

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Any]]:
        """Fetch the available records, and wait at most ``POLL_S``."""
        async for item in super().getmany(min(timeout, POLL_S)):
            yield item

    async def _wait_next_records(self, timeout: float) -> Any:
        while self.flow_active and not self.should_stop and not self._get_active_partitions():
            self._room.clear()
            await self._getmany(active_partitions=set(), timeout=0.0)
            await self.wait_first(self._room.wait(), self.suspend_flow.wait(), timeout=PAUSED_S)
        return await super()._wait_next_records(timeout)

    async def _drain_messages(self, fetcher: Any) -> None:
        """Fetch chunks and pass each to its stream, until this consumer or Faust's ``fetcher`` stops.

        A chunk is passed on without a wait, except during a rebalance, which ends the wait.
        """
        try:
            while not (self.should_stop or fetcher.should_stop):
                await asyncio.sleep(0)  # a fetch may return without a wait
                async for _, message in self.getmany(POLL_S):
                    if self.app.flow_control.is_active():
                        await self.callback(message)
                    else:
                        await self.wait_first(self.callback(message), self.suspend_flow.wait())
        except (asyncio.CancelledError, *self.consumer_stopped_errors):
            if not self.app.should_stop:
                raise

    def _to_message(self, tp: TP, chunk: FetchedChunk) -> Any:
        """Return one message for a whole chunk, because Faust takes 0.15 ms for a message."""
        message = super()._to_message(tp, chunk.records[0])
        message.chunk = chunk
        return message

    async def force_commit(self, topics: Iterable[Any] | None = None, start_new_transaction: bool = True) -> bool:
        """Commit the positions that are safe (all earlier records are finished) and not committed yet. Return True if
        any position was committed."""
        settings, owner = self.app.settings, self.app.owner
        positions = {tp: owner.safe_position(contract_tp(settings, tp)) for tp in self.assignment()}
        offsets = {tp: offset for tp, offset in positions.items() if offset is not None}
        offsets = {tp: offset for tp, offset in offsets.items() if offset > (self._committed_offset[tp] or 0)}
        if not offsets or not await self._commit(offsets):
            return False
        self._committed_offset.update(offsets)
        return True

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Do nothing: the watchdog of the runner detects stalls."""


class _Producer(driver.Producer):  # type: ignore[misc]
    def _new_producer(self, transactional_id: str | None = None) -> AIOKafkaProducer:
        settings = self.transport.app.settings
        return kafka.producer(settings, self.client_id, transactional_id=transactional_id, linger_ms=0)


class Transport(driver.Transport):  # type: ignore[misc]
    """The Kafka driver of the Faust app in ``member.py``."""

    Consumer: ClassVar[type] = Consumer
    Producer: ClassVar[type] = _Producer


def contract_tp(settings: KafkaSettings, tp: TP) -> TopicPartition:
    """Return a topic partition with the topic's contract name, which lacks the prefix of the deployment."""
    return TopicPartition(tp.topic.removeprefix(settings.prefix), tp.partition)
