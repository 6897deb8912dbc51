"""Find the records of one frame in a partition."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from ingest.contract import headers as h
from ingest.contract.identity import FrameId, is_replay
from ingest.kafka.log import Log, LogRecord, TopicPartition

Place = tuple[int, int]
"""Epoch and sequence number of a camera's frame."""
PlaceOf = Callable[[LogRecord], Place | None]

_LINEAR = 200
"""A search over at most this number of offsets reads all records. A read takes 0.1 s before its first record arrives,
so further halving of the range would be slower than reading all records."""
MARGIN_MS = 1_000
"""Maximum assumed difference between the clocks of two brokers, in ms."""
MAX_RECORDS = 200_000
"""Maximum number of records that one search reads from a partition, which takes about ten seconds."""


def place_in(camera: str, lane: str | None = None) -> PlaceOf:
    """Return a function that returns the place (epoch and sequence number) of a record's frame, or None for a record
    of another camera or lane.

    The returned function reads only the headers of a record. Without ``lane``, the function accepts records of every
    lane except replay lanes.
    """

    def place(record: LogRecord) -> Place | None:
        own = h.lane_of(record.headers, record.topic)
        if is_replay(own) if lane is None else own != lane:
            return None
        return next(((one.epoch, one.seq) for one in h.frames_of(record.headers) if one.camera == camera), None)

    return place


async def first_from(log: Log, tp: TopicPartition, wanted: Place, place_of: PlaceOf) -> LogRecord | None:
    """Return the first record whose place (epoch and sequence number) is at least ``wanted``, by binary search.

    The places of the records must not decrease, apart from frames that an agent has sent a second time. Each offset
    is read at most once. Raise LogUnavailable.
    """
    low, high = (await log.beginnings(tp.topic))[tp.partition], (await log.ends(tp.topic))[tp.partition]
    found: LogRecord | None = None
    while low < high:
        linear = high - low <= _LINEAR
        middle = low if linear else (low + high) // 2
        record = None
        async with aclosing(log.read(*tp, middle, high)) as records:
            async for one in records:
                place = place_of(one)
                if place is not None and (not linear or place >= wanted):
                    record = one
                    break
        if linear:
            return record or found
        if record is None:
            high = middle
        elif (place_of(record) or wanted) >= wanted:
            found, high = record, middle
        else:
            low = record.offset + 1
    return found


async def written_from(
    log: Log, tp: TopicPartition, since_ms: int, most: int | None = MAX_RECORDS
) -> AsyncGenerator[LogRecord, None]:
    """Yield the records that were written at ``since_ms`` or later, by the broker's clock in Unix ms.

    Read at most ``most`` offsets; None: all. Raise LogUnavailable.
    """
    end = (await log.ends(tp.topic))[tp.partition]
    start = min(await log.offset_at(tp, since_ms - MARGIN_MS), end)
    async with aclosing(log.read(*tp, start, end if most is None else min(end, start + most))) as records:
        async for record in records:
            yield record


def names(record: LogRecord, frame: FrameId) -> bool:
    """Return whether a record's headers name a frame."""
    return str(frame).encode() in record.headers.get(h.FRAMES, b"").split(b"\n")
