"""Take partitions over from another node, and write the results of owned partitions in offset order.

A take-over has three steps, and no other order of the steps is safe. First, the take-over opens the transactional
writers, so that Kafka aborts the transactions of the previous owners and fences these owners. Second, the take-over
reads the committed offsets, which no fenced owner can change. Third, the take-over reads committed results and dead
letters to restore the high-water marks, which recognise repeated frames.

Only nodes with ``--fused``, which also prepare frames, read partitions of frames. A partition of frames has the same
transactional writer and high-water marks as the partition of batches in its lane. A node without ``--fused`` that
takes over a partition therefore fences a node with ``--fused``, and a node with ``--fused`` fences one without.

Partitions that are taken over together share the reads of results and dead letters. The results of the live and the
late lane are in the same partition, and the dead letters of all partitions are in one topic.
"""

from __future__ import annotations

import asyncio
import math
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing

from engines.node.jobs import HighWaterMarks, Job, accept, results
from ingest.contract import headers as h
from ingest.contract.groups import ENGINES
from ingest.contract.topics import BATCHES, BATCHES_LATE, DEADLETTER, FRAMES, FRAMES_LATE, RESULTS
from ingest.kafka.log import Log, LogRecord, Outgoing, TopicPartition, Writer
from ingest.kafka.position import StartPosition, start_position
from ingest.runtime.clock import Clock, SystemClock

MAX_COMMIT_JOBS = 64
"""Maximum number of jobs per transaction, so that a transaction commits in tens of milliseconds."""
MAX_UNCOMMITTED_S = 0.25
"""Time in s after a commit of offsets in which transactions of the same partition commit no offsets.

Without offsets, a transaction takes two requests less, and the broker writes one marker less. A record whose results
are written and whose offset is not committed is a repeat for the next owner, which writes nothing for it."""
IDLE_COMMIT_S = 1.0
"""Time in s after the last results of a partition at which its uncommitted offsets are committed alone.

While frames keep arriving, the next results are written earlier, and commit these offsets in their transaction."""
MAX_UNCOMMITTED_JOBS = 4
"""Maximum number of jobs whose results are written and whose offsets are not committed, so that the lag of the group
still shows how far the nodes are behind."""
REPEATS_S = 600.0
"""A take-over reads all results of the last ``REPEATS_S`` seconds to restore the high-water marks.

In this time, every frame that is delivered twice is delivered again. After a crash, the stage ``prepare`` repeats
less than a second of frames. After an outage of its link, an agent repeats the frames that were in flight."""
RESULTS_TAIL = 20_000
"""Minimum number of results that a take-over reads per partition, if the results of the last ``REPEATS_S`` seconds
are fewer. To read 20,000 results takes less than a second."""
RESULTS_MOST = 400_000
"""Maximum number of results that a take-over reads per partition. To read 400,000 results takes about ten seconds."""
DEAD_LETTERS_TAIL = 500
"""Maximum number of dead letters that a take-over reads to restore the high-water marks. Each dead letter holds
pixels, about half a megabyte. If there are more dead letters, the node cannot tell a frame of an older dead letter
from a frame out of order, so both frames count as repeats."""

Gap = tuple[TopicPartition, int, int]
"""A gap in a partition: the topic partition, the expected offset, and the higher offset that arrived. A gap means
that Kafka has deleted records. Transaction markers, which also leave gaps, do not occur, because batches are not
written in transactions."""


def batches_of(tp: TopicPartition) -> TopicPartition:
    """Return the partition of ``batches`` or ``batches.late`` that belongs to an input partition of a node."""
    return TopicPartition({FRAMES: BATCHES, FRAMES_LATE: BATCHES_LATE}.get(tp.topic, tp.topic), tp.partition)


class OwnedPartition:
    """One input partition that this node owns, with its transactional writer, high-water marks and jobs.

    Jobs are added and written in offset order, even if jobs are classified in another order.
    """

    def __init__(self, tp: TopicPartition, writer: Writer, marks: HighWaterMarks, start: StartPosition) -> None:
        self.tp, self.start = tp, start
        self.next = start.offset
        """Offset of the next record to read."""
        self._writer = writer
        self._marks = marks
        self._jobs: deque[Job] = deque()
        self._settled_at_s: float | None = None
        self._position = start.offset
        self._committed_at_s = self._written_at_s = -math.inf
        self.uncommitted = 0
        """Number of jobs whose results are written and whose offsets are not committed yet."""
        self.in_flight_bytes = 0
        """Total size in bytes of the records of all jobs whose results are not written yet."""

    @property
    def in_flight(self) -> int:
        """Number of jobs whose results are not written yet."""
        return len(self._jobs)

    def take(self, record: LogRecord, pipelines: frozenset[str]) -> Job:
        """Turn a record into a job, append the job to this partition's jobs, and return the job."""
        job = accept(record, self._marks, pipelines)
        self._append(job)
        self.next = record.offset + 1
        return job

    def _append(self, job: Job) -> None:
        self._jobs.append(job)
        self.in_flight_bytes += len(job.record.value)

    def _position_after(self, jobs: Sequence[Job]) -> int:
        """Return the offset to commit when the results of ``jobs``, the first jobs of the queue, are written."""
        return jobs[-1].record.offset + 1

    def due(self, now_s: float, patience_s: float, *, stopping: bool = False) -> float | None:
        """Return the monotonic time in s of the next call of ``write``; None if there is nothing to write or commit.

        Finished jobs at the head of the queue are due at once if all jobs are finished or the finished jobs fill a
        transaction. While later jobs are unfinished, finished jobs wait up to ``patience_s`` to share a transaction
        with the later jobs. If no job is left, uncommitted offsets are due ``IDLE_COMMIT_S`` after the last write, or
        at once if the node is ``stopping``.
        """
        if not self._jobs or not self._jobs[0].settled:
            self._settled_at_s = None
            if self._jobs or not self.uncommitted:
                return None
            return now_s if stopping else self._written_at_s + IDLE_COMMIT_S
        if self._settled_at_s is None:
            self._settled_at_s = now_s
        full = len(self._settled_head()) == MAX_COMMIT_JOBS
        return now_s if full or all(job.settled for job in self._jobs) else self._settled_at_s + patience_s

    async def write(self, now_ns: Callable[[], int], now_s: float) -> int:
        """Write the results of the finished jobs at the head of the queue in one transaction.

        The transaction also commits the offsets of all written jobs if the last commit was ``MAX_UNCOMMITTED_S``
        seconds ago, if ``MAX_UNCOMMITTED_JOBS`` jobs wait for a commit, if there are no results to write, or with a
        dead letter. ``now_s`` is the monotonic time in s. Return the number of written records. Calls of ``write``
        must not overlap. Raise Fenced or LogUnavailable, after which the partition must be closed.
        """
        jobs = self._settled_head()
        records: list[Outgoing] = [record for job in jobs for record in results(job, now_ns())]
        position = self._position_after(jobs) if jobs else self._position
        uncommitted = self.uncommitted + len(jobs)
        commits = (
            not jobs
            or uncommitted >= MAX_UNCOMMITTED_JOBS
            or now_s >= self._committed_at_s + MAX_UNCOMMITTED_S
            or any(record.topic == DEADLETTER for record in records)  # a take-over reads the last dead letters only
        )
        await self._writer.write(records, ENGINES, {self.tp: position} if commits else {})
        self._position, self._written_at_s = position, now_s
        self.uncommitted = 0 if commits else uncommitted
        if commits:
            self._committed_at_s = now_s
        for _ in jobs:
            self.in_flight_bytes -= len(self._jobs.popleft().record.value)
        return len(records)

    async def close(self) -> None:
        """Abort the open transaction.

        The partition's next owner reads all records again whose results this node has not written.
        """
        await self._writer.close()

    def _settled_head(self) -> list[Job]:
        jobs: list[Job] = []
        for job in self._jobs:
            if not job.settled or len(jobs) == MAX_COMMIT_JOBS:
                break
            jobs.append(job)
        return jobs


MakeOwned = Callable[[TopicPartition, Writer, HighWaterMarks, StartPosition], OwnedPartition]


async def take_over(
    log: Log, tps: Sequence[TopicPartition], clock: Clock | None = None, make: MakeOwned = OwnedPartition
) -> list[OwnedPartition]:
    """Open the transactional writers of topic partitions, read committed offsets, and restore high-water marks.

    ``make`` creates each owned partition. On failure or cancellation, all opened writers are closed. Raise
    LogUnavailable.
    """
    writers: dict[TopicPartition, Writer] = {}

    async def open_writer(tp: TopicPartition) -> None:
        writers[tp] = await log.writer(f"engines-{tp.topic}-{tp.partition}")

    lanes = sorted(set(map(batches_of, tps)))
    try:
        async with asyncio.TaskGroup() as group:
            for tp in lanes:
                group.create_task(open_writer(tp))
        async with asyncio.TaskGroup() as group:
            starts = {tp: group.create_task(start_position(log, ENGINES, tp)) for tp in tps}
        positions = {tp: task.result() for tp, task in starts.items()}
        marks = {tp: HighWaterMarks() for tp in lanes}
        await _read_results(log, marks, (clock or SystemClock()).now_ns() // 1_000_000 - round(REPEATS_S * 1000))
        await _read_dead_letters(log, marks)
    except BaseException as error:
        await asyncio.gather(*(writer.close() for writer in writers.values()), return_exceptions=True)
        if isinstance(error, BaseExceptionGroup):
            raise error.exceptions[0] from error
        raise
    return [make(tp, writers[batches_of(tp)], marks[batches_of(tp)], positions[tp]) for tp in tps]


async def _read_results(log: Log, marks: Mapping[TopicPartition, HighWaterMarks], since_ms: int) -> None:
    by_partition: dict[int, list[HighWaterMarks]] = defaultdict(list)
    for tp, own in marks.items():
        by_partition[tp.partition].append(own)
    ends, beginnings = await log.settled_ends(RESULTS, sorted(by_partition)), await log.beginnings(RESULTS)
    places = [TopicPartition(RESULTS, partition) for partition in by_partition]
    recents = await asyncio.gather(*(log.offset_at(place, since_ms) for place in places))
    for (partition, shared), recent in zip(by_partition.items(), recents, strict=True):
        end = ends[partition]
        begin = max(beginnings[partition], min(recent, end - RESULTS_TAIL), end - RESULTS_MOST)
        async with aclosing(log.read(RESULTS, partition, begin, end)) as records:
            async for record in records:
                for own in shared:
                    own.advance_past(record)


async def _read_dead_letters(log: Log, marks: Mapping[TopicPartition, HighWaterMarks]) -> None:
    end, begin = (await log.settled_ends(DEADLETTER, [0]))[0], (await log.beginnings(DEADLETTER))[0]
    async with aclosing(log.read(DEADLETTER, 0, max(begin, end - DEAD_LETTERS_TAIL), end)) as letters:
        async for letter in letters:
            failure = h.read_failure(letter.headers)
            own = marks.get(TopicPartition(failure.topic, failure.partition)) if failure else None
            if own is not None:
                own.advance_past(letter)
    if end - begin > DEAD_LETTERS_TAIL:
        for own in marks.values():
            own.forget_numbers()
