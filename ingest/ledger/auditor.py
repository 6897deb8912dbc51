"""Read the topics and draw the balance.

The auditor takes a cut, the ends of the topics when it starts, and reads everything before it: first frames, then
what the agents say of themselves, then ends of frames. What was delivered before the cut may still be on its way, so
the topics are followed beyond it until every frame has its ends or the wait is over; what is older than that is
unaccounted, unless its agent says that it is in its spool. Frames captured after the cut are left to the next audit.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import aclosing
from typing import Any

from ingest.contract.topics import DEADLETTER, FRAMES, FRAMES_LATE, READINGS, RESULTS, STATUS, TOPICS, partition_for
from ingest.kafka.log import Log, LogRecord, TopicPartition
from ingest.ledger.balance import Balance, draw_balance
from ingest.ledger.entries import ENTER, RetainedFrames
from ingest.ledger.readings import RetainedReadings
from ingest.ledger.states import Ledger
from ingest.runtime.clock import Clock, Deadline, SystemClock
from ingest.site.topic import store as configstore

Progress = Callable[[int, int], None]
"""Called with the records read so far and those to read."""

_PHASES = ((FRAMES, READINGS), (FRAMES_LATE,), (STATUS,), (RESULTS, DEADLETTER))
"""Where retention has cut into a camera is seen in its live frames, and into a sensor in its readings, so these come
first; ends of frames that were taken are not kept, so they come last."""
_TOPICS = tuple(topic for phase in _PHASES for topic in phase)
_POLL_S = 0.25
"""Between looks for what has ended since: a batch's delay and a transaction take less."""
_READERS = 8
"""Partitions read at once. Each fetches up to 16 MiB ahead, so this bounds memory; more would not be faster."""
_REPORT_EVERY = 500


async def audit(
    log: Log, *, wait_s: float = 30.0, on_progress: Progress | None = None, clock: Clock | None = None
) -> Balance:
    """Return the balance of everything captured so far.

    Waits for what is in flight for at most ``wait_s``. Raise LogUnavailable when the log does not answer.
    """
    clock = clock or SystemClock()
    reader = _TopicReader(log, on_progress or (lambda *_: None))
    # The agents' word first: an epoch's end comes after its frames, which then are before the frames' cut.
    ends = await _ends(log, (STATUS,)) | await _ends(log, (FRAMES, FRAMES_LATE, READINGS, RESULTS, DEADLETTER))
    await reader.read_to_cut(ends, clock)
    deadline = Deadline.after(wait_s, clock)
    while not (balance := draw_balance(reader.ledger)).settled and not deadline.passed:
        await asyncio.sleep(min(_POLL_S, deadline.left))
        await reader.read_on(await _ends(log, _TOPICS))
    return balance


async def _ends(log: Log, topics: Iterable[str]) -> dict[TopicPartition, int]:
    return {TopicPartition(topic, p): end for topic in topics for p, end in (await log.ends(topic)).items()}


class _TopicReader:
    """Reads each partition once, on from where the last call stopped, and enters the records into the ledger."""

    def __init__(self, log: Log, progress: Progress) -> None:
        self.readings = Ledger()
        self.ledger = Ledger(self.readings)
        self._log = log
        self._progress = progress
        self._positions: dict[TopicPartition, int] = {}
        self._read = self._total = 0

    async def read_to_cut(self, ends: Mapping[TopicPartition, int], clock: Clock) -> None:
        """Read everything before the cut, in phases."""
        for topic in _TOPICS:
            self._positions |= {
                TopicPartition(topic, p): first for p, first in (await self._log.beginnings(topic)).items()
            }
        self._total = sum(end - self._positions[tp] for tp, end in ends.items())
        config, partitions = await configstore.read(self._log), len(await self._log.beginnings(FRAMES))
        taken = await self._taken(ends, clock)
        sensors = self._sensors(len(await self._log.beginnings(READINGS)))
        beginnings = RetainedFrames(
            self.ledger, taken, lambda camera: partition_for(camera, partitions, config.pins), sensors
        )
        enter: Mapping[str, Callable[[LogRecord], None]] = {
            FRAMES: beginnings.live_frame,
            FRAMES_LATE: beginnings.late_frame,
            READINGS: sensors.readings,
            STATUS: beginnings.status,
        }
        for phase in _PHASES[:-1]:
            await self._read_all({s: end for s, end in ends.items() if s.topic in phase}, enter)
        self.ledger.cut()
        await self.read_on({s: end for s, end in ends.items() if s.topic in _PHASES[-1]})

    def _sensors(self, partitions: int) -> RetainedReadings:
        taken = {tp.partition for tp, first in self._positions.items() if tp.topic == READINGS and first > 0}
        return RetainedReadings(self.readings, taken, lambda sensor: partition_for(sensor, partitions))

    async def read_on(self, ends: Mapping[TopicPartition, int]) -> None:
        """Read what has come since, and enter what fills a hole or ends a frame."""
        await self._read_all(ends, {topic: functools.partial(enter, self.ledger) for topic, enter in ENTER.items()})

    async def _read_all(
        self, ends: Mapping[TopicPartition, int], enter: Mapping[str, Callable[[LogRecord], None]]
    ) -> None:
        free = asyncio.Semaphore(_READERS)

        async def one(tp: TopicPartition, end: int) -> None:
            async with free:
                await self._partition(tp, end, enter[tp.topic])

        await _together(one(tp, end) for tp, end in ends.items() if self._positions.get(tp, 0) < end)
        self._progress(self._read, max(self._read, self._total))

    async def _partition(self, tp: TopicPartition, end: int, enter: Callable[[LogRecord], None]) -> None:
        async with aclosing(self._log.read(*tp, self._positions.get(tp, 0), end)) as records:
            async for record in records:
                enter(record)
                self._read += 1
                if self._read % _REPORT_EVERY == 0:
                    self._progress(self._read, max(self._read, self._total))
        self._positions[tp] = end

    async def _taken(self, ends: Mapping[TopicPartition, int], clock: Clock) -> dict[int, int]:
        """Return, by partition of the frames, the Unix time in ms up to which retention has taken some of them."""
        taken: dict[int, int] = {}
        for tp, first in self._positions.items():
            if tp.topic in (FRAMES, FRAMES_LATE) and first > 0:
                oldest_ms = clock.now_ns() // 1_000_000 - TOPICS[tp.topic].retention_ms
                async with aclosing(self._log.read(*tp, first, ends[tp])) as records:
                    async for record in records:
                        oldest_ms = record.timestamp_ms
                        break
                taken[tp.partition] = max(oldest_ms, taken.get(tp.partition, 0))
        return taken


async def _together(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run all of it, and raise the first error when the rest has stopped."""
    try:
        async with asyncio.TaskGroup() as group:
            for each in work:
                group.create_task(each)
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
