"""The Kafka consumer of an engine node.

The consumer pauses newly assigned partitions until the node has taken the partitions over. The consumer also pauses
partitions of a lane (live or late) that has too many unfinished jobs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from aiokafka import ConsumerRebalanceListener
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import InconsistentGroupProtocolError

from engines.node.scheduler import Scheduler
from engines.node.takeover import OwnedPartition
from ingest.contract.groups import ENGINES
from ingest.contract.topics import BATCHES, BATCHES_LATE, FRAMES, FRAMES_LATE
from ingest.exceptions import HostConflict, LogUnavailable
from ingest.kafka import settings as kafka
from ingest.kafka.kafkalog import from_consumer
from ingest.kafka.log import LogRecord, TopicPartition
from ingest.kafka.settings import KafkaSettings
from ingest.kafka.writer import start

POLL_MS = 50
"""Maximum time in ms that a poll waits for the first record. The wait does not delay jobs that were read earlier."""
POLL_RECORDS = 16
"""Maximum number of records per poll. The live or the late lane can exceed its limit of jobs by at most
``POLL_RECORDS`` jobs."""
FETCH_PARTITION_BYTES = 4 * 1024 * 1024
"""Maximum number of bytes that aiokafka prefetches from a partition. A single record that is larger than
``FETCH_PARTITION_BYTES`` still arrives (KIP-74). The prefetched records of a paused partition stay in memory."""
_NO_PARTITION = KafkaPartition("", 0)
"""Partition that no consumer has, to poll without reading any partition."""
LIVE_ROWS_PER_INSTANCE = 64
"""Maximum number of images of live frames that wait for one engine: two large batches, which keep the engine busy."""
LIVE_JOBS = 512
"""Maximum number of batches of live frames whose results are not written yet."""
LIVE_BYTES = 96 * 1024 * 1024
"""Maximum bytes of live batches whose results are not written yet. A job keeps its pixels in memory until its results
are written."""
LATE_SHARE = 4
"""Late batches have the limits of live batches, divided by this number. A quarter of the live limits still keeps
engines busy with late batches, and does not delay live frames."""


class LaneLoad(NamedTuple):
    """Load of the live or the late lane: images that wait for an engine, batches whose results are not written yet,
    and the bytes of these batches."""

    rows: int = 0
    jobs: int = 0
    bytes: int = 0


class LaneThrottle:
    """Chooses which partitions of the live or the late lane to pause.

    The limits have hysteresis: an exceeded limit applies until the load has fallen to half of the limit. If a lane
    has too many jobs or bytes, all partitions of the lane are paused. If too many images wait, only the partitions
    with the most waiting images are paused, so that other partitions are not delayed. Pure. Each lane has limits of
    its own, so that a backlog of late batches never stops the reading of live batches. The scheduler classifies live
    batches before late batches.
    """

    def __init__(self, instances: int, *, late: bool) -> None:
        share = LATE_SHARE if late else 1
        self._limits = LaneLoad(LIVE_ROWS_PER_INSTANCE * instances // share, LIVE_JOBS // share, LIVE_BYTES // share)
        self._full = self._busy = False

    def paused(self, load: LaneLoad, waiting: Mapping[TopicPartition, int]) -> set[TopicPartition]:
        """Return the partitions to pause.

        ``waiting`` maps each partition that may be read to its number of waiting images.
        """
        jobs, size = self._limits.jobs, self._limits.bytes
        divisor = 2 if self._full else 1
        self._full = load.jobs > jobs // divisor or load.bytes > size // divisor
        self._busy = load.rows > self._limits.rows // (2 if self._busy else 1)
        if self._full:
            return set(waiting)
        share = self._limits.rows // (2 * len(waiting)) if waiting else 0
        return {tp for tp, rows in waiting.items() if self._busy and rows > share}


class BatchIntake:
    """Consumer of the topics ``batches`` and ``batches.late`` in the consumer group ``engines``.

    A node with ``--fused`` also prepares frames, so its consumer also reads ``frames`` and ``frames.late``. With
    ``--fused``, the consumer's assignor gives the partitions with the same number, of all topics, to one node. A
    Kafka consumer group has only one assignor, so the broker does not admit nodes with ``--fused`` and nodes without
    ``--fused`` to one group.

    A partition yields no records between ``hold`` and ``begin``, and none while ``LaneThrottle`` pauses it.
    """

    def __init__(
        self, settings: KafkaSettings, client_id: str, instances: int, session_timeout_ms: int, *, fused: bool = False
    ) -> None:
        self._settings = settings
        self._held: set[TopicPartition] = set()
        live, late = LaneThrottle(instances, late=False), LaneThrottle(instances, late=True)
        self._lanes: dict[tuple[str, ...], LaneThrottle] = (
            {(FRAMES, BATCHES): live, (FRAMES_LATE, BATCHES_LATE): late}
            if fused
            else {(BATCHES,): live, (BATCHES_LATE,): late}
        )
        self.topics = tuple(topic for topics in self._lanes for topic in topics)
        self._consumer = kafka.consumer(
            settings,
            client_id,
            group=ENGINES,
            session_timeout_ms=session_timeout_ms,
            heartbeat_interval_ms=session_timeout_ms // 4,
            max_partition_fetch_bytes=FETCH_PARTITION_BYTES,
            **({"partition_assignment_strategy": (RangePartitionAssignor,)} if fused else {}),
        )

    @property
    def spread_topics(self) -> tuple[str, ...]:
        """Topics whose partitions Kafka may spread over the nodes independently of other topics.

        For a node with ``--fused``, return only one topic, because the partitions with the same number of all topics
        go to the same node.
        """
        return self.topics[:1] if FRAMES in self.topics else self.topics

    async def start(self, listener: ConsumerRebalanceListener) -> None:
        """Join the consumer group. Raise LogUnavailable. Raise HostConflict if the group has nodes with ``--fused``
        and nodes without ``--fused``."""
        self._consumer.subscribe([self._settings.topic(t) for t in self.topics], listener=listener)
        try:
            await start(self._consumer, self._settings)
        except LogUnavailable as error:
            if not isinstance(error.__cause__, InconsistentGroupProtocolError):
                raise
            raise HostConflict(
                f"the group {ENGINES} has engine nodes {'without' if FRAMES in self.topics else 'with'} --fused: "
                "stop them first. Then start all nodes with --fused, or all without; no frame is lost or repeated"
            ) from error

    async def stop(self) -> None:
        """Leave the consumer group."""
        await self._consumer.stop()

    def hold(self, tps: Iterable[TopicPartition]) -> None:
        """Pause partitions that have just been assigned."""
        self._held = set(tps)
        self._consumer.pause(*map(self._kafka_partition, self._held))

    def begin(self, tp: TopicPartition, position: int) -> None:
        """Seek to an offset in a partition that ``hold`` has paused. The next ``throttle`` resumes the partition."""
        self._consumer.seek(self._kafka_partition(tp), position)
        self._held.discard(tp)

    async def position(self, tp: TopicPartition) -> int:
        """Return the next offset to read from a partition that ``begin`` was called for."""
        return int(await self._consumer.position(self._kafka_partition(tp)))

    async def next(self) -> list[LogRecord]:
        """Return the next records of the partitions that are not paused; an empty list if no record arrives within
        ``POLL_MS``."""
        readable = self._consumer.assignment() - self._consumer.paused()
        # If no partitions are named, aiokafka discards the prefetched records of paused partitions.
        batches = await self._consumer.getmany(
            *(readable or (_NO_PARTITION,)), timeout_ms=POLL_MS, max_records=POLL_RECORDS
        )
        return [from_consumer(self._settings, record) for records in batches.values() for record in records]

    def throttle(self, owned: Iterable[OwnedPartition], scheduler: Scheduler) -> None:
        """Pause partitions whose lane exceeds its limits, that ``hold`` has paused, or that wait for a model.

        Resume all other partitions.
        """
        assigned = {self.tp(kafka_tp) for kafka_tp in self._consumer.assignment()}
        wanted = assigned & (self._held | scheduler.blocked())
        for topics, lane in self._lanes.items():
            waiting = {tp: scheduler.rows_of(tp) for tp in assigned - wanted if tp.topic in topics}
            in_flight = [partition for partition in owned if partition.tp in waiting]
            load = LaneLoad(
                rows=sum(waiting.values()),
                jobs=sum(partition.in_flight for partition in in_flight),
                bytes=sum(partition.in_flight_bytes for partition in in_flight),
            )
            wanted |= lane.paused(load, waiting)
        paused = {self.tp(kafka_tp) for kafka_tp in self._consumer.paused()}
        self._consumer.pause(*map(self._kafka_partition, wanted - paused))
        self._consumer.resume(*map(self._kafka_partition, (paused - wanted) & assigned))

    def tp(self, kafka_tp: KafkaPartition) -> TopicPartition:
        """Return a topic partition without the deployment's topic prefix."""
        return TopicPartition(kafka_tp.topic.removeprefix(self._settings.prefix), kafka_tp.partition)

    def _kafka_partition(self, tp: TopicPartition) -> KafkaPartition:
        return KafkaPartition(self._settings.topic(tp.topic), tp.partition)
