"""Back-pressure: a stage stops processing a partition while the readers of the stage's output lag behind.

During back-pressure, records wait in the input topic, where records are small and retained for long: a frame waits as
JPEG, not as pixels for each model. Without back-pressure, batches would pile up while the engines are down, and
retention would delete them before they are classified.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple, Protocol, runtime_checkable

from ingest.kafka.log import Log, TopicPartition

CHECK_LAG_S = 5.0
"""Time in seconds between two checks of how far the readers of a stage's output lag behind."""
CHECK_BEHIND_S = 1.0
"""Time in seconds between two checks while readers lag behind, so that the stage notices soon that they have caught
up. With n partitions, a check sends n + 2 requests to Kafka."""


class Downstream(NamedTuple):
    """The consumer group that reads a stage's output on ``topic``, and limits of the group's lag per partition."""

    group: str
    topic: str
    usual_lag: int
    """Maximum lag in records at which the group keeps up, so that the stage writes each record at once."""
    max_lag: int
    """Maximum lag in records at which the stage processes further records."""


@runtime_checkable
class BackPressured(Protocol):
    """A stage that writes no faster than another consumer group reads the stage's output."""

    @property
    def downstream(self) -> Downstream:
        """The consumer group that reads the stage's output."""


class BackPressure:
    """Decides in which partitions a stage stops processing.

    A partition that waits continues once its lag is at most half of the maximum lag. Pure.
    """

    def __init__(self, max_lag: int) -> None:
        self._max_lag = max_lag
        self._held: set[int] = set()

    def held(self, lags: Mapping[int, int]) -> frozenset[int]:
        """Return the partitions that must wait, given the lag of each partition in records."""
        self._held = {
            p for p, lag in lags.items() if lag > (self._max_lag // 2 if p in self._held else self._max_lag)
        }
        return frozenset(self._held)


async def downstream_lags(log: Log, downstream: Downstream, partitions: Iterable[int]) -> dict[int, int]:
    """Return, per partition, the number of records that the downstream group has not committed.

    Raise LogUnavailable.
    """
    ends, beginnings = await log.ends(downstream.topic), await log.beginnings(downstream.topic)
    lags = {}
    for partition in partitions:
        committed = await log.committed(downstream.group, TopicPartition(downstream.topic, partition))
        lags[partition] = ends[partition] - max(committed or 0, beginnings[partition])
    return lags
