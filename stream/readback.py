"""Reading a partition backwards, so that a new owner's state is a function of the log.

What a tracker or a window needs is the last so many seconds of its own input, as its camera or sensor tells the time.
The broker's times say little about that: late frames are written ten times as fast as they were captured, an outage
writes nothing for minutes, and a sensor writes a column now and then.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import NamedTuple

from ingest.kafka.log import Log, LogRecord, TopicPartition

_FIRST_CHUNK = 1_000
_LAST_CHUNK = 16_000
"""Offsets per step back, from a quiet partition's tail on: each step takes 0.1 s before its first record comes, so
that they double; and the last size is what may be in memory beside what is kept, some 20 MB."""
_LEAST_OFFSETS = 100_000
"""Two minutes of the busiest partition, while late frames come beside the live ones; three seconds of reading."""
_OFFSETS_PER_S = 200
"""For times longer than that: forty results a second, and the markers of their transactions, with room for four
such pipelines."""
_MOST_OFFSETS = 200_000
"""However long a rule's times are: the watchdog ends a process that takes a minute to open its partitions."""
_BEYOND = 20_000
"""Records that are read in vain at the most, in search of a history that is longer than all that was written."""


class HistoryPoint(NamedTuple):
    """Where a record stands in the history of its ``key``, and how many seconds of that history are needed.

    ``at_ns`` is the key's own time. A history ends where another ``epoch`` begins.
    """

    key: str
    epoch: int
    at_ns: int
    wanted_s: float


def offsets_for(seconds: float) -> int:
    """Return how many offsets may be read back for so many seconds of a partition."""
    return round(min(max(_LEAST_OFFSETS, seconds * _OFFSETS_PER_S), _MOST_OFFSETS))


async def tail(
    log: Log, tp: TopicPartition, position: int, place: Callable[[LogRecord], HistoryPoint | None], seconds: float
) -> list[LogRecord]:
    """Return, in order, the records before ``position`` that its next owner must know. Each is read once.

    Of every key with a record in the last ``seconds`` of the broker's time these are all the records in the last
    ``wanted_s`` of its own time, within its last epoch; of other keys, those that were met on the way. ``place``
    returns None for a record that is of no use. No more than ``offsets_for(seconds)`` offsets are read.
    Raise LogUnavailable.
    """
    reach = _Reach(place, seconds)
    found: list[LogRecord] = []
    async with aclosing(_backwards(log, tp, position, offsets_for(seconds))) as chunks:
        async for chunk in chunks:
            found += [record for record in reversed(chunk) if reach.takes(record)]
            if reach.enough:
                break
    found.reverse()
    return found


async def written_since(log: Log, tp: TopicPartition, since_ms: int) -> list[LogRecord]:
    """Return, in order, what was written at that Unix time or later, within the last 100,000 offsets.

    Raise LogUnavailable.
    """
    end = (await log.ends(tp.topic))[tp.partition]
    found: list[LogRecord] = []
    async with aclosing(_backwards(log, tp, end, _LEAST_OFFSETS)) as chunks:
        async for chunk in chunks:
            found += [record for record in reversed(chunk) if record.timestamp_ms >= since_ms]
            if chunk and chunk[0].timestamp_ms < since_ms:
                break
    found.reverse()
    return found


async def _backwards(log: Log, tp: TopicPartition, stop: int, most: int) -> AsyncGenerator[list[LogRecord], None]:
    """Yield what lies before an offset in chunks, the last one first. One may be empty: there may be only markers."""
    begin = max((await log.beginnings(tp.topic))[tp.partition], stop - most)
    size = _FIRST_CHUNK
    while stop > begin:
        start = max(begin, stop - size)
        yield [record async for record in log.read(tp.topic, tp.partition, start, stop)]
        stop, size = start, min(2 * size, _LAST_CHUNK)


class _Reach:
    """How far back is far enough. It is shown the records one by one, the last one first."""

    def __init__(self, place: Callable[[LogRecord], HistoryPoint | None], seconds: float) -> None:
        self._place = place
        self._seconds = seconds
        self._since_ms: float | None = None
        self._newest: dict[str, HistoryPoint] = {}
        self._sought: set[str] = set()
        self._whole: set[str] = set()
        self._beyond = 0

    @property
    def enough(self) -> bool:
        """Tell whether all that is sought has been seen, or has been sought for long enough."""
        return self._beyond > 0 and (not self._sought or self._beyond > _BEYOND)

    def takes(self, record: LogRecord) -> bool:
        """Tell whether this record is needed. It is older than all those before it."""
        if self._since_ms is None:
            self._since_ms = record.timestamp_ms - self._seconds * 1000
        if self._beyond or record.timestamp_ms < self._since_ms:
            self._beyond += 1
        place = self._place(record)
        return place is not None and place.key not in self._whole and self._belongs(place)

    def _belongs(self, place: HistoryPoint) -> bool:
        newest = self._newest.get(place.key)
        if newest is None and not self._beyond:  # what is met later is not sought, or one would lead on to the next
            self._sought.add(place.key)
        if newest is None or place.epoch > newest.epoch:  # a lower epoch that comes after a higher one is a repeat
            newest = self._newest[place.key] = place
        if place.epoch == newest.epoch and newest.at_ns - place.at_ns <= place.wanted_s * 1e9:
            return True
        self._whole.add(place.key)
        self._sought.discard(place.key)
        return False
