"""The thread in which aiokafka runs.

The thread fetches each partition from the position that the partition's loop sets.

Without this module, Faust and aiokafka lose records when the group rebalances. A fetch that runs during a rebalance
waits for the new assignment and returns the first records of the new assignment. Faust, which is paused during a
rebalance, drops the fetched records and seeks to the committed offsets. Faust does not seek in a partition without a
committed offset, so the fetched records that Faust drops from it are never read again. In a new assignment, this
module fetches a partition only after the partition's loop has called ``begin``. If the assignment changes during a
fetch, this module seeks back to the first fetched record.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer
from aiokafka.structs import ConsumerRecord
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from ingest.kafka import settings as kafka
from stream.runner.acks import FetchNumber

POLL_RECORDS = 512
"""Maximum number of records that one fetch returns. A fetch takes 0.5 ms, as long as ``sense`` takes for twenty small
records. Large records reach ``FETCH_PARTITION_BYTES`` first."""
FETCH_PARTITION_BYTES = 2 * 1024 * 1024
"""Maximum bytes of one fetch from one partition: about a hundred frames. A record that is larger than
``FETCH_PARTITION_BYTES`` is fetched alone (KIP-74)."""
FETCH_BYTES = 8 * 1024 * 1024
"""Maximum bytes of one fetch from one broker. Decompression of a fetch takes twice as much memory, and a larger limit
does not make fetching faster."""


class FetchedChunk(NamedTuple):
    """The records of one partition that one fetch has returned, and the fetch number of the first record."""

    first: FetchNumber
    records: list[ConsumerRecord[bytes, bytes]]


@dataclass(slots=True)
class _BegunPartition:
    """One partition in one assignment, after the partition's loop has called ``begin``.

    ``kafka_assignment`` is aiokafka's object for the assignment. aiokafka creates a new object at each rebalance.
    """

    kafka_assignment: Any
    assignment: int
    fetched: int = 0


class ConsumerThread(driver.AIOKafkaConsumerThread):  # type: ignore[misc]
    """The thread of the Kafka consumer.

    Public methods are called in Faust's thread, and private methods run in the consumer's thread.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._begun: dict[TP, _BegunPartition] = {}

    def _create_worker_consumer(self, transport: Any) -> AIOKafkaConsumer:
        self._assignor = None  # only Faust's tables need an assignor
        conf = self.app.conf
        settings = self.app.settings
        group = str(conf.id).removeprefix(settings.prefix)
        return kafka.consumer(
            settings,
            conf.broker_client_id,
            group=group,
            group_instance_id=self.app.instance or None,
            max_poll_records=POLL_RECORDS,
            max_partition_fetch_bytes=FETCH_PARTITION_BYTES,
            fetch_max_bytes=FETCH_BYTES,
        )

    async def getmany(self, active_partitions: set[TP] | None, timeout: float) -> dict[TP, list[FetchedChunk]]:
        """Fetch the available records of partitions, and wait at most ``timeout`` seconds.

        Faust's own method passes the call through a queue, which other calls such as commits still use.
        """
        fetch = self._fetch_records(self._ensure_consumer(), active_partitions or set(), timeout, POLL_RECORDS)
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(fetch, self.thread_loop))

    async def begin(self, tp: TP, position: int, assignment: int) -> bool:
        """Begin to fetch a partition at a position. Return False if another member now owns the partition."""
        return bool(await self.call_thread(self._begin, driver.ensure_aiokafka_TP(tp), position, assignment))

    def fetched(self, tp: TP, assignment: int) -> int:
        """Return how many records of a partition were fetched in an assignment."""
        begun = self._begun.get(tp)
        return begun.fetched if begun and begun.assignment == assignment else 0

    def unfetched(self, tp: TP) -> int:
        """Return how many offsets of a partition the broker has after the last fetched record.

        Any thread may call this method.
        """
        current = self._assignment()
        state = current.state_value(driver.ensure_aiokafka_TP(tp)) if current else None
        if state is None:
            return 0
        lso, position = state.lso, state._position  # `position` asserts that no other thread changes it
        return 0 if lso is None or position is None else max(0, int(lso) - int(position))

    def _assignment(self) -> Any:
        """Return aiokafka's current assignment; None before the first assignment."""
        subscription = self._consumer and self._consumer._subscription.subscription
        return subscription and subscription.assignment

    async def _begin(self, tp: TP, position: int, assignment: int) -> bool:
        current = self._assignment()
        if current is None or tp not in current.tps:
            return False
        self._ensure_consumer().seek(tp, position)
        self._begun[tp] = _BegunPartition(current, assignment)
        return True

    async def _commit(self, offsets: dict[TP, int]) -> bool:
        """Commit the offsets of partitions that are still assigned.

        Do not commit if none of the partitions is still assigned, because aiokafka and Faust fail on an empty commit.
        """
        assigned = {tp: offset for tp, offset in offsets.items() if tp in self.assignment()}
        return bool(assigned) and bool(await super()._commit(assigned))

    async def _fetch_records(
        self,
        consumer: AIOKafkaConsumer,
        active_partitions: set[TP],
        timeout: float | None = None,
        max_records: int | None = None,
    ) -> dict[TP, list[FetchedChunk]]:
        current = self._assignment()
        # Iterates over the begun partitions: Faust's thread may change the set of active ones meanwhile.
        begun = {tp for tp, b in self._begun.items() if b.kafka_assignment is current and tp in active_partitions}
        if not begun:
            return await self._fetch_nothing(consumer, timeout or 0.0)
        records = await super()._fetch_records(consumer, begun, timeout=timeout, max_records=max_records)
        if self._assignment() is not current:
            for tp, found in records.items():
                consumer.seek(tp, found[0].offset)
            return {}
        return {tp: [self._numbered(self._begun[tp], found)] for tp, found in records.items() if found}

    async def _fetch_nothing(self, consumer: AIOKafkaConsumer, seconds: float) -> dict[TP, list[FetchedChunk]]:
        """Wait for some seconds, and let aiokafka count the wait as a fetch, because the group expels a member that
        does not fetch."""
        with consumer._subscription.fetch_context():
            await asyncio.sleep(seconds)
        return {}

    def _numbered(self, begun: _BegunPartition, records: list[ConsumerRecord[bytes, bytes]]) -> FetchedChunk:
        first, begun.fetched = begun.fetched, begun.fetched + len(records)
        return FetchedChunk(FetchNumber(begun.assignment, first), records)
