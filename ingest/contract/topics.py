"""Names, partition counts and retention of the topics, and a comparison with the topics on the broker.

Five topics are co-partitioned: a frame of partition p of ``frames`` stays in partition p of the other four.
Co-partitioning keeps the frames of each camera in order from the agent to the results, without a reorder buffer.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

from aiokafka.partitioner import murmur2

from ingest.contract.codec import MAX_RECORD_BYTES
from ingest.exceptions import TopicMismatch

FRAMES = "frames"
FRAMES_LATE = "frames.late"
READINGS = "readings"
BATCHES = "batches"
BATCHES_LATE = "batches.late"
RESULTS = "results"
EVENTS = "events"
MEASURES = "measures"
FORECASTS = "forecasts"
INCIDENTS = "incidents"
INCIDENT_ACTIONS = "incidents.actions"
SIGNALS = "signals"
ALERTS = "alerts"
EVIDENCE = "evidence"
DELIVERIES = "deliveries"
DEADLETTER = "deadletter"
CONFIG = "config"
STATUS = "status"
SHADOW = "shadow"
BACKTESTS = "backtests"
LABELS = "labels"

LATE_TOPICS = frozenset({FRAMES_LATE, BATCHES_LATE})

CO_PARTITIONED = (FRAMES, FRAMES_LATE, BATCHES, BATCHES_LATE, RESULTS)

_HOUR_MS = 3_600_000
_DAY_MS = 24 * _HOUR_MS
_SEGMENT_BYTES = 1024 * 1024 * 1024
_BATCHES_BYTES = 4 * 1024 * 1024 * 1024
"""Maximum size of one partition of ``batches``, in bytes: eight thousand frames of half a megabyte each."""


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic of the contract.

    ``partitions`` is None if the deployment chooses the number of partitions, as for ``frames``.
    """

    name: str
    retention_ms: int
    partitions: int | None = None
    compacted: bool = False
    compression: str | None = None
    retention_bytes: int = -1
    """Maximum size of a partition in bytes, above which the broker deletes the oldest records; -1 if only time limits
    the retention."""

    def settings(self, replication: int = 1) -> dict[str, str]:
        """Return the topic's settings under Kafka's names, for partitions with ``replication`` replicas."""
        return {
            "compression.type": self.compression or "producer",
            # Two of three replicas have a record before it is acknowledged, and one may be down.
            "min.insync.replicas": "2" if replication > 2 else "1",
            "cleanup.policy": "compact" if self.compacted else "delete",
            "retention.ms": str(-1 if self.compacted else self.retention_ms),
            "message.timestamp.type": "LogAppendTime",  # retention by the broker's clock: see decision 7
            "retention.bytes": str(self.retention_bytes),
            "segment.bytes": str(_SEGMENT_BYTES if self.retention_bytes < 0 else self.retention_bytes // 8),
            "max.message.bytes": str(MAX_RECORD_BYTES + 64 * 1024),  # room for headers and Kafka's batch header
        }


TOPICS: Mapping[str, Topic] = {
    t.name: t
    for t in (
        Topic(FRAMES, _DAY_MS),
        Topic(FRAMES_LATE, _DAY_MS),
        Topic(READINGS, 7 * _DAY_MS, compression="lz4"),
        # Batches are large, and useless once classified. They are kept as long as frames, so that
        # engines may be down for a while, but with a limit in bytes.
        Topic(BATCHES, _DAY_MS, retention_bytes=_BATCHES_BYTES),
        Topic(BATCHES_LATE, _DAY_MS, retention_bytes=_BATCHES_BYTES),
        Topic(RESULTS, 7 * _DAY_MS, compression="lz4"),
        Topic(EVENTS, 30 * _DAY_MS, compression="lz4"),
        Topic(MEASURES, 30 * _DAY_MS, compression="lz4"),
        Topic(FORECASTS, 30 * _DAY_MS, compression="lz4"),
        Topic(INCIDENTS, 30 * _DAY_MS, compression="lz4"),
        Topic(INCIDENT_ACTIONS, 30 * _DAY_MS, compression="lz4"),
        Topic(SIGNALS, _DAY_MS, compression="lz4"),
        Topic(ALERTS, 30 * _DAY_MS, compression="lz4"),
        # Hashes and tombstones stay longer than the evidence itself, unless someone keeps evidence for over a year.
        Topic(EVIDENCE, 366 * _DAY_MS, partitions=1, compression="lz4"),
        Topic(DELIVERIES, 30 * _DAY_MS, compression="lz4"),
        Topic(DEADLETTER, 30 * _DAY_MS, partitions=1),
        Topic(CONFIG, 0, partitions=1, compacted=True, compression="lz4"),
        Topic(STATUS, 30 * _DAY_MS, partitions=1, compression="lz4"),
        Topic(SHADOW, 7 * _DAY_MS, partitions=1, compression="lz4"),
        Topic(BACKTESTS, 7 * _DAY_MS, partitions=1, compression="lz4"),
        # The work of people, a few hundred bytes each. A datasheet may cite a decision long after its frame is gone.
        Topic(LABELS, 366 * _DAY_MS, partitions=1, compression="lz4"),
    )
}


def partition_for(key: str, partitions: int, pins: Mapping[str, int] | None = None) -> int:
    """Return the partition of a camera or sensor: the pinned partition, else the murmur2 hash of the name.

    The hash is the same as in the default partitioner of Kafka's Java client. Producers always pass the partition
    explicitly, because librdkafka's default partitioner uses another hash.
    """
    if pins and key in pins:
        return pins[key]
    return _hash(key) % partitions


@functools.lru_cache(maxsize=10_000)
def _hash(key: str) -> int:
    """Return the hash of a name. aiokafka computes it in Python, which takes several µs."""
    return int(murmur2(key.encode()) & 0x7FFFFFFF)


def topic_differences(found: Mapping[str, int]) -> list[str]:
    """Return the differences between the topics on the broker and the contract.

    ``found`` maps each topic's name without prefix to its number of partitions.
    """
    problems = [f"{name} is missing: run `sightline topics create`" for name in TOPICS if name not in found]
    for name, topic in TOPICS.items():
        expected = topic.partitions
        if expected is not None and found.get(name, expected) != expected:
            problems.append(f"{name} has {found[name]} partitions, expected {expected}")
    counts = {name: found[name] for name in CO_PARTITIONED if name in found}
    if len(set(counts.values())) > 1:
        problems.append(
            f"co-partitioned topics have different numbers of partitions, {counts}: run `sightline topics grow`"
        )
    return problems


def delivery_differences(found: Mapping[str, int]) -> list[str]:
    """Return a list with one problem if ``deliveries`` has fewer partitions than ``alerts``, else an empty list.

    A delivery receipt goes to the partition of ``deliveries`` that has the same number as the alert's partition.
    """
    alerts, deliveries = found.get(ALERTS, 0), found.get(DELIVERIES, 0)
    if deliveries >= alerts:
        return []
    problem = f"{DELIVERIES} has {deliveries} partitions, expected {alerts} as {ALERTS} has"
    return [f"{problem}: run `sightline topics verify --fix`"]


def setting_differences(name: str, found: Mapping[str, str], replication: int) -> list[str]:
    """Return the differences between the broker's settings of a topic and the contract."""
    return [
        f"{name}: {key} = {found.get(key)}, expected {value}: run `sightline topics verify --fix`"
        for key, value in TOPICS[name].settings(replication).items()
        if found.get(key) != value
    ]


def require_topics(found: Mapping[str, int]) -> None:
    """Raise TopicMismatch if the broker's topics differ from the contract."""
    problems = topic_differences(found)
    if problems:
        raise TopicMismatch(problems)
