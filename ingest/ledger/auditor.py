"""The audit: read the topics and compute whether every captured frame has exactly one known outcome.

When the audit starts, it notes the end offsets of all topics (the cut). The audit reads all records that were written
before its start: first frames, then heartbeats, then results and dead letters. A frame delivered before the audit
started may still be in processing. The audit also reads the results and dead letters that are written while it runs,
until every frame has its final states or the time limit is over. Frames that are still missing or lack a final state
at the end of the audit are unaccounted, except frames that an agent reports in its spool. Frames captured after the
start of the audit are not part of it.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from ingest.contract.groups import READERS
from ingest.contract.topics import (
    DEADLETTER,
    FRAMES,
    FRAMES_LATE,
    READINGS,
    RESULTS,
    STATUS,
    TOPICS,
    partition_for,
)
from ingest.kafka.log import Log, LogRecord, TopicPartition
from ingest.ledger.balance import Balance, compute_balance
from ingest.ledger.entries import ENTRY_BY_TOPIC, RetainedFrames, RetainedReadings
from ingest.ledger.hours import compute_hours
from ingest.ledger.states import Ledger
from ingest.runtime.clock import Clock, Deadline, SystemClock
from ingest.site.topic import store as configstore

Progress = Callable[[int, int], None]
"""A callback that gets the number of records read so far and the total number of records to read."""

_PHASES = ((FRAMES, READINGS), (FRAMES_LATE,), (STATUS,), (RESULTS, DEADLETTER))
"""Order of reading. Live frames and readings come first, because they show the first retained frame of each camera
and the first retained reading of each sensor. Results and dead letters come last, because the ledger ignores results
of frames that retention has deleted."""
_TOPICS = tuple(topic for phase in _PHASES for topic in phase)
_POLL_S = 0.25
"""Pause between two reads of new results and dead letters, in seconds. The pause is longer than a batch waits for
more frames and than a transaction takes."""
_READERS = 8
"""Number of partitions that the audit reads at the same time. The number of readers bounds memory, because each
reader buffers up to 16 MiB. More readers would not make the audit faster."""
_REPORT_EVERY = 500


async def audit(
    log: Log,
    *,
    wait_s: float = 30.0,
    by_hour: bool = False,
    on_progress: Progress | None = None,
    clock: Clock | None = None,
) -> Balance:
    """Return, for all frames and readings captured so far, their counts by outcome and the faults found.

    Wait at most ``wait_s`` for frames that are still being processed. With ``by_hour``, also compute the balance of
    each camera and hour. Raise LogUnavailable when the broker does not respond.
    """
    clock = clock or SystemClock()
    reader = _TopicReader(log, on_progress or (lambda *_: None))
    # The cut of status comes first: an epoch's end is written after its frames, so they are before the frames' cut.
    ends = await _ends(log, (STATUS,)) | await _ends(log, (FRAMES, FRAMES_LATE, READINGS, RESULTS, DEADLETTER))
    await reader.read_to_cut(ends, clock)
    deadline = Deadline.after(wait_s, clock)
    while not (balance := compute_balance(reader.ledger)).settled and not deadline.passed:
        await asyncio.sleep(min(_POLL_S, deadline.left))
        await reader.read_on(await _ends(log, _TOPICS))
    return replace(balance, hours=compute_hours(reader.ledger)) if by_hour else balance


async def _ends(log: Log, topics: Iterable[str]) -> dict[TopicPartition, int]:
    return {TopicPartition(topic, p): end for topic in topics for p, end in (await log.ends(topic)).items()}


class _TopicReader:
    """Reads all partitions and enters the records into the ledger.

    Each call of ``read_on`` continues at the offsets at which the previous call stopped.
    """

    def __init__(self, log: Log, progress: Progress) -> None:
        self.readings = Ledger()
        self.ledger = Ledger(self.readings)
        self._log = log
        self._progress = progress
        self._positions: dict[TopicPartition, int] = {}
        self._read = self._total = 0

    async def read_to_cut(self, ends: Mapping[TopicPartition, int], clock: Clock) -> None:
        """Read all records up to the offsets ``ends``, topic by topic in the order of ``_PHASES``."""
        for topic in _TOPICS:
            self._positions |= {
                TopicPartition(topic, p): first for p, first in (await self._log.beginnings(topic)).items()
            }
        self._total = sum(end - self._positions[tp] for tp, end in ends.items())
        config, of_frames = await configstore.read(self._log), len(await self._log.beginnings(FRAMES))
        of_readings = len(await self._log.beginnings(READINGS))
        sensors = RetainedReadings(
            self.readings,
            {tp.partition for tp, first in self._positions.items() if tp.topic == READINGS and first > 0},
            lambda sensor: partition_for(sensor, of_readings),
        )
        cameras = RetainedFrames(
            self.ledger,
            await self._truncated(ends, clock),
            lambda camera: partition_for(camera, of_frames, config.pins),
            sensors,
        )
        enter: Mapping[str, Callable[[LogRecord], None]] = {
            FRAMES: cameras.frame,
            FRAMES_LATE: cameras.frame,
            READINGS: sensors.readings,
            STATUS: cameras.status,
        }
        for phase in _PHASES[:-1]:
            await self._read_all({tp: end for tp, end in ends.items() if tp.topic in phase}, enter)
        await self._enter_expired()
        self.ledger.cut()
        await self.read_on({tp: end for tp, end in ends.items() if tp.topic in _PHASES[-1]})

    async def _enter_expired(self) -> None:
        """Enter into the ledger the offsets of records that retention deleted before a stopped service read the
        records."""
        for topic, groups in READERS.items():
            for partition, first in (await self._log.beginnings(topic)).items():
                tp = TopicPartition(topic, partition)
                commits = {group: await self._log.committed(group, tp) for group in groups}
                known = [(offset, group) for group, offset in commits.items() if offset is not None]
                committed, group = max(known, default=(first, ""))
                if committed < first:
                    self.ledger.expired_unread[group, topic, partition].add(committed, first - 1)

    async def read_on(self, ends: Mapping[TopicPartition, int]) -> None:
        """Read the records that were written since the last call.

        Enter into the ledger the frames, readings and intervals of withheld frames that earlier reads did not find,
        and the final states of frames.
        """
        enter = {topic: functools.partial(entry, self.ledger) for topic, entry in ENTRY_BY_TOPIC.items()}
        await self._read_all(ends, enter)

    async def _read_all(
        self, ends: Mapping[TopicPartition, int], enter: Mapping[str, Callable[[LogRecord], None]]
    ) -> None:
        free = asyncio.Semaphore(_READERS)

        async def one(tp: TopicPartition, end: int) -> None:
            async with free:
                await self._read_partition(tp, end, enter[tp.topic])

        await _gather(one(tp, end) for tp, end in ends.items() if self._positions.get(tp, 0) < end)
        self._progress(self._read, max(self._read, self._total))

    async def _read_partition(self, tp: TopicPartition, end: int, enter: Callable[[LogRecord], None]) -> None:
        async with aclosing(self._log.read(*tp, self._positions.get(tp, 0), end)) as records:
            async for record in records:
                enter(record)
                self._read += 1
                if self._read % _REPORT_EVERY == 0:
                    self._progress(self._read, max(self._read, self._total))
        self._positions[tp] = end

    async def _truncated(self, ends: Mapping[TopicPartition, int], clock: Clock) -> dict[int, int]:
        """Return, by partition number, the Unix time in ms up to which retention has deleted frames."""
        truncated: dict[int, int] = {}
        for tp, first in self._positions.items():
            if tp.topic in (FRAMES, FRAMES_LATE) and first > 0:
                oldest_ms = clock.now_ns() // 1_000_000 - TOPICS[tp.topic].retention_ms
                async with aclosing(self._log.read(*tp, first, ends[tp])) as records:
                    async for record in records:
                        oldest_ms = record.timestamp_ms
                        break
                truncated[tp.partition] = max(oldest_ms, truncated.get(tp.partition, 0))
        return truncated


async def _gather(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run all coroutines.

    If a coroutine fails, cancel the other coroutines, wait until they have stopped, and raise the error.
    """
    try:
        async with asyncio.TaskGroup() as group:
            for each in work:
                group.create_task(each)
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
