"""Read a partition backwards, so that a new owner can rebuild the partition's state.

A tracker or a window needs the last seconds of its own input, measured by the clock of its camera or sensor. Broker
timestamps do not measure the time of a camera: late frames are written ten times as fast as they were captured, and
no records are written during an outage. Broker timestamps do not measure the time of a sensor either, because a
sensor collects readings and writes them together in one record.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import NamedTuple

from ingest.kafka.log import Log, LogRecord, TopicPartition

_FIRST_CHUNK = 1_000
_LAST_CHUNK = 16_000
"""Maximum number of offsets in one read; ``_FIRST_CHUNK`` is the number of offsets in the first read. The number of
offsets doubles from read to read, because each read takes 0.1 s before its first record arrives. The maximum limits
the memory of a read to about 20 MB."""
_MIN_OFFSETS = 100_000
"""Number of offsets that every search may read, however short the needed history is. The busiest partition, with live
and late frames, writes ``_MIN_OFFSETS`` records in two minutes. Reading ``_MIN_OFFSETS`` records takes three
seconds."""
_OFFSETS_PER_S = 200
"""Number of offsets that a search may read per second of history, if the history needs more than ``_MIN_OFFSETS``. A
pipeline writes about forty offsets per second, results and transaction markers together; the limit is enough for
several pipelines."""
_MAX_OFFSETS = 200_000
"""Maximum number of offsets that a search may read, even if a rule needs a longer history. Reading ``_MAX_OFFSETS``
records takes about six seconds."""
_MAX_BEYOND = 20_000
"""Maximum number of records that a search reads before the last ``seconds`` of broker time, for cameras or sensors
whose history in these seconds is too short."""


class HistoryPoint(NamedTuple):
    """The epoch (capture run) and time of one record of the camera or sensor that ``key`` names.

    ``at_ns`` is the time by the clock of the camera or sensor. The history of a camera or sensor has records of one
    ``epoch`` only. ``wanted_s`` is the length of the history that a new owner needs, in seconds.
    """

    key: str
    epoch: int
    at_ns: int
    wanted_s: float


def offsets_for(seconds: float) -> int:
    """Return the maximum number of offsets to read back for a history of ``seconds``."""
    return round(min(max(_MIN_OFFSETS, seconds * _OFFSETS_PER_S), _MAX_OFFSETS))


async def tail(
    log: Log,
    tp: TopicPartition,
    position: int,
    history_point: Callable[[LogRecord], HistoryPoint | None],
    seconds: float,
) -> list[LogRecord]:
    """Return, in order, the records before ``position`` that the next owner needs. Read each record once.

    ``history_point`` returns key, epoch (capture run) and time of a record, or None for a record to skip. For every
    key (camera or sensor) with a record in the last ``seconds`` of broker time, return the last ``wanted_s`` of the
    key's last epoch, by the key's own clock. For a camera or sensor without a record in the last ``seconds``, return
    only the records that the search reads anyway for other cameras or sensors. Read at most ``offsets_for(seconds)``
    offsets. Raise LogUnavailable.
    """
    reach = _Reach(history_point, seconds)
    found: list[LogRecord] = []
    async with aclosing(backwards(log, tp, position, offsets_for(seconds))) as chunks:
        async for chunk in chunks:
            found += [record for record in reversed(chunk) if reach.takes(record)]
            if reach.enough:
                break
    found.reverse()
    return found


async def written_since(log: Log, tp: TopicPartition, since_ms: int) -> list[LogRecord]:
    """Return, in order, the records written at the Unix time ``since_ms`` or later, within the last 100,000 offsets.

    Raise LogUnavailable.
    """
    end = (await log.ends(tp.topic))[tp.partition]
    found: list[LogRecord] = []
    async with aclosing(backwards(log, tp, end, _MIN_OFFSETS)) as chunks:
        async for chunk in chunks:
            found += [record for record in reversed(chunk) if record.timestamp_ms >= since_ms]
            if chunk and chunk[0].timestamp_ms < since_ms:
                break
    found.reverse()
    return found


async def written_from(log: Log, tp: TopicPartition, position: int, past: Sequence[LogRecord]) -> int | None:
    """Return the time at which the earliest record of ``past`` was written; if ``past`` is empty, that of the first
    record from ``position`` on.

    The time is Unix time in ms; None if there is no record. Output of uncommitted records may be on the log since the
    returned time, because an earlier owner may have processed them without a commit. Raise LogUnavailable.
    """
    if past:
        return min(record.timestamp_ms for record in past)
    end = (await log.ends(tp.topic))[tp.partition]
    async with aclosing(log.read(tp.topic, tp.partition, position, end)) as records:
        async for record in records:
            return record.timestamp_ms
    return None


async def backwards(log: Log, tp: TopicPartition, stop: int, most: int) -> AsyncGenerator[list[LogRecord], None]:
    """Yield the records before the offset ``stop`` in chunks, the last chunk first.

    A range of offsets that has only transaction markers gives an empty chunk.
    """
    begin = max((await log.beginnings(tp.topic))[tp.partition], stop - most)
    size = _FIRST_CHUNK
    while stop > begin:
        start = max(begin, stop - size)
        yield [record async for record in log.read(tp.topic, tp.partition, start, stop)]
        stop, size = start, min(2 * size, _LAST_CHUNK)


class _Reach:
    """Decides how far back a search reads. ``takes`` gets the records one by one, the last record of the partition
    first."""

    def __init__(self, history_point: Callable[[LogRecord], HistoryPoint | None], seconds: float) -> None:
        self._history_point = history_point
        self._seconds = seconds
        self._since_ms: float | None = None
        self._newest: dict[str, HistoryPoint] = {}
        self._incomplete: set[str] = set()
        self._complete: set[str] = set()
        self._beyond = 0

    @property
    def enough(self) -> bool:
        """Whether the histories of all keys are complete, or the search has reached its limit."""
        return self._beyond > 0 and (not self._incomplete or self._beyond > _MAX_BEYOND)

    def takes(self, record: LogRecord) -> bool:
        """Return whether ``record`` is needed to complete the history of its camera or sensor. Each call must pass an
        older record than the previous call."""
        if self._since_ms is None:
            self._since_ms = record.timestamp_ms - self._seconds * 1000
        if self._beyond or record.timestamp_ms < self._since_ms:
            self._beyond += 1
        point = self._history_point(record)
        return point is not None and point.key not in self._complete and self._belongs(point)

    def _belongs(self, point: HistoryPoint) -> bool:
        newest = self._newest.get(point.key)
        # No history is searched for a key first found beyond the time limit: such a search might never end.
        if newest is None and not self._beyond:
            self._incomplete.add(point.key)
        if newest is None or point.epoch > newest.epoch:  # a lower epoch after a higher one is a repeat
            newest = self._newest[point.key] = point
        if point.epoch == newest.epoch and newest.at_ns - point.at_ns <= point.wanted_s * 1e9:
            return True
        self._complete.add(point.key)
        self._incomplete.discard(point.key)
        return False
