"""What the node reads: one consumer in the group, partitions that wait until they are taken over, and a bound."""

from __future__ import annotations

from collections.abc import Iterable

from aiokafka import ConsumerRebalanceListener, TopicPartition

from engines.scheduler import Scheduler
from engines.slots import GROUP, OwnedSlot
from engines.throttle import Load, Throttle
from ingest import kafka
from ingest.kafka import KafkaSettings
from ingest.kafkalog import from_consumer
from ingest.kafkawriter import start
from ingest.log import LogRecord, Slot
from ingest.topics import BATCHES, BATCHES_LATE

__all__ = ["Intake"]

POLL_MS = 50
"""How long a poll waits for the first record. Work that becomes ready in the meantime does not wait for it."""
POLL_RECORDS = 16
"""Taken at once: what comes over a limit is at most this."""
FETCH_PARTITION_BYTES = 4 * 1024 * 1024
"""Read ahead of a partition; a larger record still comes, alone (KIP-74). aiokafka throws away what it has read ahead
of a partition that is paused, so that more would be read twice under load."""


class Intake:
    """The node's consumer. A partition gives nothing between ``hold`` and ``begin``, nor while its lane is full."""

    def __init__(self, settings: KafkaSettings, client_id: str, instances: int, session_timeout_ms: int) -> None:
        self._settings = settings
        self._held: set[Slot] = set()
        self._lanes = {
            BATCHES: Throttle(instances, late=False),
            BATCHES_LATE: Throttle(instances, late=True),
        }
        self._consumer = kafka.consumer(
            settings,
            client_id,
            group=GROUP,
            session_timeout_ms=session_timeout_ms,
            heartbeat_interval_ms=session_timeout_ms // 4,
            max_partition_fetch_bytes=FETCH_PARTITION_BYTES,
        )

    async def start(self, listener: ConsumerRebalanceListener) -> None:
        """Join the group. Raise LogUnavailable."""
        self._consumer.subscribe([self._settings.topic(t) for t in self._lanes], listener=listener)
        await start(self._consumer, self._settings)

    async def stop(self) -> None:
        """Leave the group."""
        await self._consumer.stop()

    def hold(self, slots: Iterable[Slot]) -> None:
        """Read nothing of partitions that have just been assigned."""
        self._held = set(slots)
        self._consumer.pause(*map(self._partition, self._held))

    def begin(self, slot: Slot, position: int) -> None:
        """Read a partition from a position on."""
        self._consumer.seek(self._partition(slot), position)
        self._held.discard(slot)

    async def next(self) -> list[LogRecord]:
        """Return the next records, none when there are none for a while."""
        batches = await self._consumer.getmany(timeout_ms=POLL_MS, max_records=POLL_RECORDS)
        return [from_consumer(self._settings, record) for records in batches.values() for record in records]

    def throttle(self, owned: Iterable[OwnedSlot], scheduler: Scheduler) -> None:
        """Pause the lanes that are full, and let the others go on."""
        full = {topic for topic, lane in self._lanes.items() if lane.full(_load(topic, owned, scheduler))}
        ours = {self.slot(tp) for tp in self._consumer.assignment()}
        wanted = {slot for slot in ours if slot.topic in full or slot in self._held}
        paused = {self.slot(tp) for tp in self._consumer.paused()}
        self._consumer.pause(*map(self._partition, wanted - paused))
        self._consumer.resume(*map(self._partition, (paused - wanted) & ours))

    def slot(self, tp: TopicPartition) -> Slot:
        """Return a partition by its name in the contract."""
        return Slot(tp.topic.removeprefix(self._settings.prefix), tp.partition)

    def _partition(self, slot: Slot) -> TopicPartition:
        return TopicPartition(self._settings.topic(slot.topic), slot.partition)


def _load(topic: str, owned: Iterable[OwnedSlot], scheduler: Scheduler) -> Load:
    ours = [slot for slot in owned if slot.slot.topic == topic]
    return Load(
        rows=scheduler.waiting_in(topic),
        jobs=sum(slot.in_flight for slot in ours),
        bytes=sum(slot.in_flight_bytes for slot in ours),
    )
