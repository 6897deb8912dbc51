"""What the node reads: one consumer in the group, partitions that wait until they are taken over, and a bound."""

from __future__ import annotations

from collections.abc import Iterable

from aiokafka import ConsumerRebalanceListener
from aiokafka import TopicPartition as KafkaPartition

from engines.node.partition import GROUP, OwnedPartition
from engines.node.scheduler import Scheduler
from engines.node.throttle import LaneLoad, LaneThrottle
from ingest.contract.topics import BATCHES, BATCHES_LATE
from ingest.kafka import settings as kafka
from ingest.kafka.kafkalog import from_consumer
from ingest.kafka.log import LogRecord, TopicPartition
from ingest.kafka.settings import KafkaSettings
from ingest.kafka.writer import start

POLL_MS = 50
"""How long a poll waits for the first record. Work that becomes ready in the meantime does not wait for it."""
POLL_RECORDS = 16
"""Taken at once: what comes over a limit is at most this."""
FETCH_PARTITION_BYTES = 4 * 1024 * 1024
"""Read ahead of a partition; a larger record still comes, alone (KIP-74). aiokafka throws away what it has read ahead
of a partition that is paused, so that more would be read twice under load."""


class BatchIntake:
    """The node's consumer. A partition gives nothing between ``hold`` and ``begin``, nor while its lane is full."""

    def __init__(self, settings: KafkaSettings, client_id: str, instances: int, session_timeout_ms: int) -> None:
        self._settings = settings
        self._held: set[TopicPartition] = set()
        self._lanes = {
            BATCHES: LaneThrottle(instances, late=False),
            BATCHES_LATE: LaneThrottle(instances, late=True),
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

    def hold(self, tps: Iterable[TopicPartition]) -> None:
        """Read nothing of partitions that have just been assigned."""
        self._held = set(tps)
        self._consumer.pause(*map(self._partition, self._held))

    def begin(self, tp: TopicPartition, position: int) -> None:
        """Read a partition from a position on."""
        self._consumer.seek(self._partition(tp), position)
        self._held.discard(tp)

    async def next(self) -> list[LogRecord]:
        """Return the next records, none when there are none for a while."""
        batches = await self._consumer.getmany(timeout_ms=POLL_MS, max_records=POLL_RECORDS)
        return [from_consumer(self._settings, record) for records in batches.values() for record in records]

    def throttle(self, owned: Iterable[OwnedPartition], scheduler: Scheduler) -> None:
        """Pause the lanes that are full, and let the others go on."""
        full = {topic for topic, lane in self._lanes.items() if lane.full(_load(topic, owned, scheduler))}
        ours = {self.tp(kafka_tp) for kafka_tp in self._consumer.assignment()}
        wanted = {tp for tp in ours if tp.topic in full or tp in self._held}
        paused = {self.tp(kafka_tp) for kafka_tp in self._consumer.paused()}
        self._consumer.pause(*map(self._partition, wanted - paused))
        self._consumer.resume(*map(self._partition, (paused - wanted) & ours))

    def tp(self, kafka_tp: KafkaPartition) -> TopicPartition:
        """Return a partition by its name in the contract."""
        return TopicPartition(kafka_tp.topic.removeprefix(self._settings.prefix), kafka_tp.partition)

    def _partition(self, tp: TopicPartition) -> KafkaPartition:
        return KafkaPartition(self._settings.topic(tp.topic), tp.partition)


def _load(topic: str, owned: Iterable[OwnedPartition], scheduler: Scheduler) -> LaneLoad:
    ours = [tp for tp in owned if tp.tp.topic == topic]
    return LaneLoad(
        rows=scheduler.waiting_in(topic),
        jobs=sum(tp.in_flight for tp in ours),
        bytes=sum(tp.in_flight_bytes for tp in ours),
    )
