"""Where to begin reading a partition again, so that state is a function of the log."""

from __future__ import annotations

from collections.abc import AsyncIterator

from ingest.log import Log, LogRecord, Slot

__all__ = ["tail"]

_CHUNK = 500
"""Records per step back; results are a few hundred bytes each."""


async def tail(log: Log, slot: Slot, position: int, seconds: float, most: int) -> AsyncIterator[LogRecord]:
    """Yield the records before ``position`` that were written in the last so many seconds before it.

    At most ``most`` of them. The broker's own times are used, which are those of writing.
    """
    begin = (await log.beginnings(slot.topic))[slot.partition]
    first = position
    oldest_ms: float | None = None
    while first > max(begin, position - most):
        start = max(begin, position - most, first - _CHUNK)
        newest_ms = oldest_first_ms = None
        async for record in log.read(slot.topic, slot.partition, start, first):
            oldest_first_ms = record.timestamp_ms if oldest_first_ms is None else oldest_first_ms
            newest_ms = record.timestamp_ms
        if oldest_ms is None and newest_ms is not None:
            oldest_ms = newest_ms - seconds * 1000
        first = start
        if oldest_first_ms is not None and oldest_ms is not None and oldest_first_ms < oldest_ms:
            break
    async for record in log.read(slot.topic, slot.partition, first, position):
        if oldest_ms is None or record.timestamp_ms >= oldest_ms:
            yield record
