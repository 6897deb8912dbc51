"""Read the topics and draw the balance.

The auditor takes a cut, the ends of the topics when it starts, and reads everything before it. What was delivered
before the cut may still be on its way: results, dead letters and status are followed beyond the cut until every
frame has its ends or the wait is over; what is older than that is unaccounted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from ingest import headers as h
from ingest.clock import Clock, Deadline
from ingest.codec import decode
from ingest.exceptions import CodecError
from ingest.identity import FrameId
from ingest.ledger.balance import Balance, draw
from ingest.ledger.states import Books, End
from ingest.log import Log, LogRecord
from ingest.records import Frame, Heartbeat, Result
from ingest.topics import DEADLETTER, FRAMES, FRAMES_LATE, RESULTS, STATUS

__all__ = ["Progress", "audit"]

Progress = Callable[[int, int], None]
"""Called with the records read so far and those to read."""

_ENDINGS = (RESULTS, DEADLETTER, STATUS)
_POLL_S = 0.5
"""Between looks for what has ended since: a batch's delay and a transaction take less."""
_REPORT_EVERY = 500


async def audit(
    log: Log, *, wait_s: float = 30.0, on_progress: Progress | None = None, clock: Clock | None = None
) -> Balance:
    """Return the balance of everything captured so far.

    Waits for what is in flight for at most ``wait_s``. Raise LogUnavailable when the log does not answer.
    """
    reader = _Reader(log, on_progress)
    await reader.read_to(await _ends(log, (FRAMES, FRAMES_LATE, *_ENDINGS)))
    deadline = Deadline.after(wait_s, clock)
    while not (balance := reader.balance()).balanced and not deadline.passed:
        await asyncio.sleep(min(_POLL_S, deadline.left))
        await reader.read_to(await _ends(log, _ENDINGS))
    return balance


async def _ends(log: Log, topics: tuple[str, ...]) -> dict[str, Mapping[int, int]]:
    return dict(zip(topics, await asyncio.gather(*(log.ends(t) for t in topics)), strict=True))


class _Reader:
    """Reads each partition once, on from where the last call stopped, and enters the records into the books."""

    def __init__(self, log: Log, on_progress: Progress | None) -> None:
        self._log = log
        self._positions: dict[tuple[str, int], int] = {}
        self._books = Books()
        self._cut_epochs: set[tuple[str, int]] = set()
        self._progress = on_progress or (lambda *_: None)
        self._read = self._total = 0

    def balance(self) -> Balance:
        return draw(self._books, self._cut_epochs)

    async def read_to(self, ends: Mapping[str, Mapping[int, int]]) -> None:
        for topic in ends:
            if (topic, 0) not in self._positions:
                beginnings = await self._log.beginnings(topic)
                self._positions |= {(topic, p): offset for p, offset in beginnings.items()}
        spans = {(t, p): (self._positions[t, p], end) for t in ends for p, end in ends[t].items()}
        self._total += sum(end - start for start, end in spans.values())
        await asyncio.gather(*(self._partition(t, p, *span) for (t, p), span in spans.items()))
        self._progress(self._total, self._total)

    async def _partition(self, topic: str, partition: int, start: int, end: int) -> None:
        if start >= end:
            return
        enter = _ENTER[topic]
        truncated = start > 0 and topic in (FRAMES, FRAMES_LATE)
        async for record in self._log.read(topic, partition, start, end):
            frames = enter(self._books, record)
            if truncated:
                self._cut_epochs |= {(f.camera, f.epoch) for f in frames if f.seq}
                truncated = False
            self._read += 1
            if self._read % _REPORT_EVERY == 0:
                self._progress(self._read, self._total)
        self._positions[topic, partition] = end


def _frame(books: Books, record: LogRecord) -> tuple[FrameId, ...]:
    frames, lane = h.frames_of(record.headers), h.lane_of(record.headers, record.topic)
    if len(frames) == 1:
        books.delivered(frames[0], lane, h.account_of(record.headers, frames[0]))
        return frames
    try:
        frame = decode(Frame, record.value)
    except CodecError:
        return ()  # it says nothing of itself: prepare parks it, and it is counted there as unidentified
    books.delivered(frame.id, lane, frame.account)
    return (frame.id,)


def _result(books: Books, record: LogRecord) -> tuple[FrameId, ...]:
    try:
        result = decode(Result, record.value)
    except CodecError:
        return ()  # a result that nobody can read is no end: its frame shows up as unaccounted
    end = End(result.outcome, result.pipeline, result.lane, result.reason)
    books.finished(result.id, end, frozenset(result.pipelines))
    return (result.id,)


def _dead_letter(books: Books, record: LogRecord) -> tuple[FrameId, ...]:
    failure, frames = h.read_failure(record.headers), h.frames_of(record.headers)
    if failure is None or not failure.topic.startswith(("frames", "batches")):
        return ()  # a result, event or reading that failed later on: its frame has its end already
    pipeline = record.headers.get(h.PIPELINE, b"").decode(errors="replace")
    lane = h.lane_of(record.headers, failure.topic)
    for frame in frames:
        books.finished(frame, End("dead", pipeline, lane, failure.error))
    books.unidentified += not frames
    return frames


def _status(books: Books, record: LogRecord) -> tuple[FrameId, ...]:
    try:
        beat = decode(Heartbeat, record.value)
    except CodecError:
        return ()
    for account in beat.accounts:
        books.account(account)
    for end in beat.ended:
        books.ended(end)
    return ()


_ENTER: dict[str, Callable[[Books, LogRecord], tuple[FrameId, ...]]] = {
    FRAMES: _frame,
    FRAMES_LATE: _frame,
    RESULTS: _result,
    DEADLETTER: _dead_letter,
    STATUS: _status,
}
