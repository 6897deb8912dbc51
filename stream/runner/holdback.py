"""Hold a stage back while those who read what it writes are behind.

What waits then waits where it is small and kept for long: a frame as a JPEG, not as pixels for each model. Without
this, engines that are away for an hour leave batches behind that retention takes before they are classified.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple, Protocol, runtime_checkable

from ingest.kafka.log import Log, TopicPartition

HOLD_S = 5.0
"""Between two looks at how far the readers are."""


class Reader(NamedTuple):
    """The consumer group that reads what a stage writes to ``topic``, and how many records it may be behind."""

    group: str
    topic: str
    most: int


@runtime_checkable
class HeldBack(Protocol):
    """A stage that writes no faster than it is read."""

    @property
    def reader(self) -> Reader:
        """Who reads it."""
        ...


class HoldBack:
    """Decides for each partition; what is held goes on once its reader has caught up with half. Pure."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: set[int] = set()

    def held(self, waiting: Mapping[int, int]) -> frozenset[int]:
        """Return the partitions that must wait, from how many records wait in each."""
        self._held = {
            p for p, count in waiting.items() if count > (self._most // 2 if p in self._held else self._most)
        }
        return frozenset(self._held)


async def behind(log: Log, reader: Reader, partitions: Iterable[int]) -> dict[int, int]:
    """Return how many records of each partition the reader has not done. Raise LogUnavailable."""
    ends, beginnings = await log.ends(reader.topic), await log.beginnings(reader.topic)
    waiting = {}
    for partition in partitions:
        committed = await log.committed(reader.group, TopicPartition(reader.topic, partition))
        waiting[partition] = ends[partition] - max(committed or 0, beginnings[partition])
    return waiting
