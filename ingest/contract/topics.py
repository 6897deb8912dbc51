"""The topics: names, keys, partitions, retention. Created and verified against the broker at start.

Five topics are co-partitioned: what belongs to partition p of ``frames`` stays in partition p all the way, so one
camera is in order from end to end without a reorder buffer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
ALERTS = "alerts"
DELIVERIES = "deliveries"
DEADLETTER = "deadletter"
CONFIG = "config"
STATUS = "status"

CO_PARTITIONED = (FRAMES, FRAMES_LATE, BATCHES, BATCHES_LATE, RESULTS)

_HOUR_MS = 3_600_000
_DAY_MS = 24 * _HOUR_MS
_SEGMENT_BYTES = 1024 * 1024 * 1024
_BATCHES_BYTES = 4 * 1024 * 1024 * 1024
"""Per partition: at half a megabyte a frame, eight thousand frames."""


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic of the contract. ``partitions`` is None where the deployment chooses (the data path)."""

    name: str
    retention_ms: int
    partitions: int | None = None
    compacted: bool = False
    compression: str | None = None
    retention_bytes: int = -1
    """Of one partition; what is older goes first. -1 for no bound but time."""
    stamped_by_broker: bool = False
    """Whether records have the broker's time rather than their producer's."""

    def settings(self) -> dict[str, str]:
        """Return the topic's settings as Kafka names them."""
        return {
            "cleanup.policy": "compact" if self.compacted else "delete",
            "retention.ms": str(-1 if self.compacted else self.retention_ms),
            "message.timestamp.type": "LogAppendTime" if self.stamped_by_broker else "CreateTime",
            "retention.bytes": str(self.retention_bytes),
            "segment.bytes": str(_SEGMENT_BYTES if self.retention_bytes < 0 else self.retention_bytes // 8),
            "max.message.bytes": str(MAX_RECORD_BYTES + 64 * 1024),  # room for the headers and the batch's frame
        }


TOPICS: Mapping[str, Topic] = {
    t.name: t
    for t in (
        Topic(FRAMES, _DAY_MS),
        Topic(FRAMES_LATE, _DAY_MS),
        Topic(READINGS, 7 * _DAY_MS, compression="lz4"),
        # Pixels: the largest topic by far, and of no use once it is classified. It is kept as long as frames are, so
        # that engines may be away for a while, but only so many bytes of it.
        Topic(BATCHES, _DAY_MS, retention_bytes=_BATCHES_BYTES),
        Topic(BATCHES_LATE, _DAY_MS, retention_bytes=_BATCHES_BYTES),
        Topic(RESULTS, 7 * _DAY_MS, compression="lz4"),
        Topic(EVENTS, 30 * _DAY_MS, compression="lz4"),
        Topic(ALERTS, 30 * _DAY_MS, compression="lz4"),
        Topic(DELIVERIES, 30 * _DAY_MS, compression="lz4"),
        Topic(DEADLETTER, 30 * _DAY_MS, partitions=1),
        Topic(CONFIG, 0, partitions=1, compacted=True, compression="lz4"),
        # Agents compare the broker's time with their own clock.
        Topic(STATUS, 30 * _DAY_MS, partitions=1, compression="lz4", stamped_by_broker=True),
    )
}


def partition_for(key: str, partitions: int, pins: Mapping[str, int] | None = None) -> int:
    """Return the partition of a camera or sensor: its pin, else murmur2 of its name as Kafka's own clients do.

    Partitions are always chosen here and given explicitly, because librdkafka's default partitioner differs.
    """
    if pins and key in pins:
        return pins[key]
    return int(murmur2(key.encode()) & 0x7FFFFFFF) % partitions


def differences(found: Mapping[str, int], names: Iterable[str] = TOPICS) -> list[str]:
    """Return how the broker's topics (name without prefix → partitions) differ from the contract."""
    wanted = list(names)
    problems = [f"{name} is missing: run `sightline topics create`" for name in wanted if name not in found]
    for name in wanted:
        expected = TOPICS[name].partitions
        if expected is not None and found.get(name, expected) != expected:
            problems.append(f"{name} has {found[name]} partitions, expected {expected}")
    counts = {name: found[name] for name in CO_PARTITIONED if name in found}
    if len(set(counts.values())) > 1:
        problems.append(f"co-partitioned topics have different numbers of partitions: {counts}")
    return problems


def require(found: Mapping[str, int], names: Iterable[str] = TOPICS) -> None:
    """Raise TopicMismatch unless the broker's topics are as the contract says."""
    problems = differences(found, names)
    if problems:
        raise TopicMismatch(problems)
