"""Read the frames and results around an event from the log, one by one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import aclosing
from typing import NamedTuple, TypeVar

from ingest.contract.codec import decode
from ingest.contract.headers import frames_of
from ingest.contract.identity import FrameId
from ingest.contract.records import Detection, Frame, FrameRef, Result
from ingest.contract.topics import FRAMES, RESULTS
from ingest.exceptions import CodecError
from ingest.kafka.log import Log, LogRecord, TopicPartition
from stream.alerts.stage import record_at
from stream.evidence.clip.window import ClipWindow

T = TypeVar("T")
MARGIN_MS = 3_000
"""The search for a clip's frames begins ``MARGIN_MS`` before the interval, because the clocks of agent and broker may
differ."""
MAX_DELAY_MS = 60_000
"""Longest time in ms from a frame's capture to its record in the log for which the search finds the frame. Without a
limit, a camera whose clock is wrong by an hour would make a worker read an hour of frames."""
MAX_BOXES = 50_000
"""Maximum number of boxes that are kept for one clip: about 5 MB."""


class FrameSpan(NamedTuple):
    """The range of offsets in a partition that contains the frames of a clip.

    ``first_ms`` and ``last_ms`` are the Unix times in ms between which the frames were written. ``expired`` says that
    retention has deleted the first frames between these times from the log.
    """

    tp: TopicPartition
    start: int
    stop: int
    first_ms: int
    last_ms: int
    expired: bool


async def span_of(log: Log, ref: FrameRef, captured_ns: int, window: ClipWindow) -> FrameSpan:
    """Return the range of offsets in which to look for the frames of a clip. Raise LogUnavailable.

    ``ref`` is the event's frame. The delay between the event frame's capture time and its time in the log is assumed
    for all frames of the clip.
    """
    tp = TopicPartition(ref.topic, ref.partition)
    record = await record_at(log, ref)
    captured_ms = captured_ns // 1_000_000
    logged_ms = record.timestamp_ms if record else captured_ms
    first_ms = logged_ms
    if ref.topic == FRAMES:  # frames before the event may have had a shorter delay
        first_ms = min(logged_ms, max(captured_ms, logged_ms - MAX_DELAY_MS))
    first_ms -= captured_ms - window.from_ns // 1_000_000 + MARGIN_MS
    last_ms = logged_ms + window.to_ns // 1_000_000 - captured_ms + MAX_DELAY_MS
    start, stop = await log.offset_at(tp, max(0, first_ms)), await log.offset_at(tp, last_ms)
    begin = (await log.beginnings(ref.topic))[ref.partition]
    expired = record is None or start <= begin > 0
    return FrameSpan(tp, max(start, begin), max(stop, ref.offset), max(0, first_ms), last_ms, expired)


async def frames_in(log: Log, span: FrameSpan, camera: str) -> AsyncGenerator[Frame, None]:
    """Yield the frames of a camera within a span. Skip unreadable records, and the records of other cameras.

    Raise LogUnavailable.
    """
    async with aclosing(log.read(*span.tp, span.start, span.stop)) as records:
        async for record in records:
            if _is_of(record, camera) and (frame := _decoded(Frame, record)) and frame.camera == camera:
                yield frame


async def boxes_in(log: Log, span: FrameSpan, camera: str) -> dict[FrameId, Sequence[Detection]]:
    """Return the detected objects of a camera's frames within a span, by frame. Raise LogUnavailable."""
    tp = TopicPartition(RESULTS, span.tp.partition)  # co-partitioned with frames
    start, stop = await log.offset_at(tp, span.first_ms), await log.offset_at(tp, span.last_ms)
    found: dict[FrameId, Sequence[Detection]] = {}
    count = 0
    async with aclosing(log.read(*tp, start, stop)) as records:
        async for record in records:
            if _is_of(record, camera) and (result := _decoded(Result, record)):
                found[result.id] = (*found.get(result.id, ()), *result.detections)
                count += len(result.detections)
                if count > MAX_BOXES:
                    break
    return found


def blocking(items: AsyncGenerator[T, None], loop: asyncio.AbstractEventLoop) -> Generator[T, None, None]:
    """Yield, one by one, the items of an asynchronous generator that runs on an event loop in another thread."""

    async def following() -> T | None:
        return await anext(items, None)

    try:
        while (item := asyncio.run_coroutine_threadsafe(following(), loop).result()) is not None:
            yield item
    finally:
        asyncio.run_coroutine_threadsafe(items.aclose(), loop).result()


def _is_of(record: LogRecord, camera: str) -> bool:
    """Return whether a record may belong to a camera, without decoding the record."""
    ids = frames_of(record.headers)
    return any(one.camera == camera for one in ids) if ids else record.key in (None, camera.encode())


R = TypeVar("R", Frame, Result)


def _decoded(kind: type[R], record: LogRecord) -> R | None:
    try:
        return decode(kind, record.value)
    except CodecError:
        return None
