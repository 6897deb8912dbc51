"""The node's consumer.

The consumer pauses new partitions until the node has taken them over, and pauses full lanes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from aiokafka import ConsumerRebalanceListener
from aiokafka import TopicPartition as KafkaPartition

from engines.node.scheduler import Scheduler
from engines.node.takeover import GROUP, OwnedPartition
from ingest.contract.topics import BATCHES, BATCHES_LATE
from ingest.kafka import settings as kafka
from ingest.kafka.kafkalog import from_consumer
from ingest.kafka.log import LogRecord, TopicPartition
from ingest.kafka.settings import KafkaSettings
from ingest.kafka.writer import start

POLL_MS = 50
"""Maximum time that a poll waits for the first record, in ms. The wait does not delay work that is ready."""
POLL_RECORDS = 16
"""Maximum number of records per poll. A lane can exceed its limit of jobs by at most this number."""
FETCH_PARTITION_BYTES = 4 * 1024 * 1024
"""Maximum bytes of a partition that aiokafka reads ahead. A single larger record still arrives (KIP-74). When a
partition is paused, aiokafka discards the data that it has read ahead. With a larger value, more data would be read
twice under load."""
LIVE_ROWS_PER_INSTANCE = 64
"""Maximum number of live rows per engine that wait for classification: two large batches, which keep an engine
busy."""
LIVE_JOBS = 512
"""Maximum number of live batches whose results are not written yet."""
LIVE_BYTES = 96 * 1024 * 1024
"""Maximum bytes of live batches whose results are not written yet. Jobs keep their pixels until their results are
written."""
LATE_SHARE = 4
"""Divisor of the live limits that gives the limits of the late lane. The smaller limits keep engines busy without
delaying live frames."""


class LaneLoad(NamedTuple):
    """Load of one lane: rows that wait for an engine, batches whose results are not written yet, and the bytes of
    these batches."""

    rows: int = 0
    jobs: int = 0
    bytes: int = 0


class LaneThrottle:
    """Chooses the partitions of one lane to pause, with hysteresis: a limit applies until its figure has halved.

    Too many jobs or bytes pause all partitions. Too many waiting rows pause the partitions that most of them come
    from, so that the others are not delayed. Pure. Each lane has limits of its own, so a late backlog never stops the
    reading of live batches. The scheduler makes live batches go first.
    """

    def __init__(self, instances: int, *, late: bool) -> None:
        share = LATE_SHARE if late else 1
        self._limits = LaneLoad(LIVE_ROWS_PER_INSTANCE * instances // share, LIVE_JOBS // share, LIVE_BYTES // share)
        self._full = self._busy = False

    def paused(self, load: LaneLoad, waiting: Mapping[TopicPartition, int]) -> set[TopicPartition]:
        """Return the partitions to pause. ``waiting`` has the waiting rows of each partition that could be read."""
        jobs, size = self._limits.jobs, self._limits.bytes
        divisor = 2 if self._full else 1
        self._full = load.jobs > jobs // divisor or load.bytes > size // divisor
        self._busy = load.rows > self._limits.rows // (2 if self._busy else 1)
        if self._full:
            return set(waiting)
        share = self._limits.rows // (2 * len(waiting)) if waiting else 0
        return {tp for tp, rows in waiting.items() if self._busy and rows > share}


class BatchIntake:
    """A consumer of ``batches`` and ``batches.late`` in the group ``engines``.

    A partition yields no records between ``hold`` and ``begin``, and none while ``LaneThrottle`` pauses it.
    """

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
        """Pause partitions that have just been assigned."""
        self._held = set(tps)
        self._consumer.pause(*map(self._kafka_partition, self._held))

    def begin(self, tp: TopicPartition, position: int) -> None:
        """Seek a held partition to an offset. The next ``throttle`` resumes the partition."""
        self._consumer.seek(self._kafka_partition(tp), position)
        self._held.discard(tp)

    async def next(self) -> list[LogRecord]:
        """Return the next records; an empty list if no record arrives within ``POLL_MS``."""
        batches = await self._consumer.getmany(timeout_ms=POLL_MS, max_records=POLL_RECORDS)
        return [from_consumer(self._settings, record) for records in batches.values() for record in records]

    def throttle(self, owned: Iterable[OwnedPartition], scheduler: Scheduler) -> None:
        """Pause the partitions over the limits of their lane, on hold or waiting for a model. Resume all others."""
        blocked = scheduler.blocked()
        assigned = {self.tp(kafka_tp) for kafka_tp in self._consumer.assignment()}
        wanted = assigned & (self._held | blocked)
        for topic, lane in self._lanes.items():
            waiting = {tp: scheduler.rows_of(tp) for tp in assigned - wanted if tp.topic == topic}
            wanted |= lane.paused(_load(topic, owned, scheduler), waiting)
        paused = {self.tp(kafka_tp) for kafka_tp in self._consumer.paused()}
        self._consumer.pause(*map(self._kafka_partition, wanted - paused))
        self._consumer.resume(*map(self._kafka_partition, (paused - wanted) & assigned))

    def tp(self, kafka_tp: KafkaPartition) -> TopicPartition:
        """Return a topic partition without the deployment's topic prefix."""
        return TopicPartition(kafka_tp.topic.removeprefix(self._settings.prefix), kafka_tp.partition)

    def _kafka_partition(self, tp: TopicPartition) -> KafkaPartition:
        return KafkaPartition(self._settings.topic(tp.topic), tp.partition)


def _load(topic: str, owned: Iterable[OwnedPartition], scheduler: Scheduler) -> LaneLoad:
    blocked = scheduler.blocked()
    lane = [partition for partition in owned if partition.tp.topic == topic and partition.tp not in blocked]
    return LaneLoad(
        rows=scheduler.waiting_in(topic),
        jobs=sum(partition.in_flight for partition in lane),
        bytes=sum(partition.in_flight_bytes for partition in lane),
    )
