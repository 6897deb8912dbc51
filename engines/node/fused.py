"""Preparation of frames inside an engine node (``sightline engine --fused``), without the topic ``batches`` in
between.

The node hosts the processor that ``sightline prepare`` also runs. The node turns each batch of the processor into a
job, and commits the offsets of the frames in the transaction of the job's results. The node still reads the topic
``batches``, for replayed batches and for batches that ``sightline prepare`` wrote earlier. The topics of frames and
of batches of a lane share one transactional writer and one set of high-water marks, so that a frame in both topics is
classified once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Protocol

from engines.node.intake import BatchIntake
from engines.node.jobs import HighWaterMarks, Job, accept
from engines.node.pipelines import LiveModels
from engines.node.takeover import Gap, OwnedPartition, batches_of, take_over
from ingest.contract.groups import ENGINES, PREPARE_LATE, PREPARE_LIVE
from ingest.contract.topics import DEADLETTER, FRAMES, FRAMES_LATE
from ingest.exceptions import LogUnavailable
from ingest.kafka.acks import AckTracker
from ingest.kafka.log import Log, LogRecord, Outgoing, TopicPartition, Writer
from ingest.kafka.membership import require_no_members
from ingest.kafka.position import BEYOND_EVERY_END, StartPosition, commit
from ingest.runtime.clock import Clock
from ingest.runtime.cpus import cpu_count


class PreparedWork(Protocol):
    """Result of preparing frames: records to process, and the offsets of the frames that are finished once these
    records are processed."""

    @property
    def records(self) -> tuple[Outgoing, ...]:
        """Batches for ``batches`` or ``batches.late``, or dead letters."""

    @property
    def done(self) -> tuple[int, ...]:
        """Offsets of the finished frames."""


class FrameProcessor(Protocol):
    """The processor of one partition of frames. The methods are never called concurrently, but may run in a worker
    thread. An exception from any method ends the node."""

    def process(self, record: LogRecord) -> Sequence[PreparedWork]:
        """Prepare one frame, and return the batches that are full."""

    def tick(self) -> Sequence[PreparedWork]:
        """Return the batches whose maximum delay has passed."""

    def flush(self) -> Sequence[PreparedWork]:
        """Return all open batches."""

    @property
    def deadline(self) -> float | None:
        """Time of the next ``tick``, on the monotonic clock in seconds; None if no batch is open."""


ProcessorFactory = Callable[[TopicPartition], FrameProcessor]
"""Function that creates the processor of one partition of frames."""


class OwnedFrames(OwnedPartition):
    """One partition of frames that this node owns and prepares.

    ``batches_end`` is the end offset that the partition of batches in the same lane had at the take-over. The node
    reads the frames once the results of all batches before ``batches_end`` are written, because these batches hold
    earlier frames.
    """

    def __init__(
        self,
        tp: TopicPartition,
        writer: Writer,
        marks: HighWaterMarks,
        start: StartPosition,
        processor: FrameProcessor,
        batches_end: int,
    ) -> None:
        super().__init__(tp, writer, marks, start)
        self.batches_end = batches_end
        self._processor = processor
        self._tracker = AckTracker(start.offset)

    def is_due(self, now_s: float) -> bool:
        """Return whether the maximum delay of an open batch has passed."""
        deadline = self._processor.deadline
        return deadline is not None and deadline <= now_s

    def deliver(self, record: LogRecord) -> bool:
        """Note that a frame is about to be prepared.

        Return False for a frame below the next offset, which means that the topic was created again.
        """
        delivered = self._tracker.deliver(record.offset)
        self.next = self._tracker.next
        return delivered

    def prepare(self, records: Sequence[LogRecord], now_s: float) -> list[PreparedWork]:
        """Prepare delivered frames, and return the batches that are full or whose maximum delay has passed.

        This method blocks. Calls of ``prepare`` and ``flush`` must not overlap.
        """
        works = [work for record in records for work in self._processor.process(record)]
        return works + list(self._processor.tick()) if self.is_due(now_s) else works

    def flush(self) -> Sequence[PreparedWork]:
        """Return all open batches."""
        return self._processor.flush()

    def take_work(self, work: PreparedWork, pipelines: frozenset[str]) -> list[Job]:
        """Turn the records in ``work`` into jobs, append these jobs to the partition's jobs, and return these jobs.

        The last job commits the offsets of the frames from which ``work`` was prepared. The dead letter of a batch
        names ``batches`` as its topic, so that a replay sends the batch to ``batches``.
        """
        jobs = [self._job(record, pipelines) for record in work.records] or [Job(LogRecord(*self.tp, -1, None, b""))]
        jobs[-1].finishes = work.done
        for job in jobs:
            self._append(job)
        return jobs

    def _job(self, out: Outgoing, pipelines: frozenset[str]) -> Job:
        record = LogRecord(out.topic, out.partition, self.next - 1, out.key, out.value, out.headers)
        if out.topic == DEADLETTER:
            return Job(record, refused=[out])
        return accept(record, self._marks, pipelines)

    def _position_after(self, jobs: Sequence[Job]) -> int:
        return self._tracker.finish(offset for job in jobs for offset in job.finishes)


async def take_over_frames(
    log: Log, tps: Sequence[TopicPartition], processor: ProcessorFactory, clock: Clock | None = None
) -> list[OwnedPartition]:
    """Take over partitions of frames and batches, once no ``sightline prepare`` runs.

    Raise HostConflict if a prepare service runs, and LogUnavailable.
    """
    for group in (PREPARE_LIVE, PREPARE_LATE):
        await require_no_members(log, group, "", "nodes with --fused prepare frames: stop `sightline prepare`")
    ends = await _ends_of(log, {batches_of(tp) for tp in tps if tp.topic in (FRAMES, FRAMES_LATE)})

    def make(tp: TopicPartition, writer: Writer, marks: HighWaterMarks, start: StartPosition) -> OwnedPartition:
        if tp.topic not in (FRAMES, FRAMES_LATE):
            return OwnedPartition(tp, writer, marks, start)
        return OwnedFrames(tp, writer, marks, start, processor(tp), ends[batches_of(tp)])

    return await take_over(log, tps, clock, make)


async def _ends_of(log: Log, tps: Collection[TopicPartition]) -> dict[TopicPartition, int]:
    """Return the end of each topic partition, with one request for each topic."""
    ends = {}
    for topic in sorted({tp.topic for tp in tps}):
        partitions = sorted(tp.partition for tp in tps if tp.topic == topic)
        for partition, end in (await log.settled_ends(topic, partitions)).items():
            ends[TopicPartition(topic, partition)] = end
    return ends


class FramePreparation:
    """Prepares the frames of all partitions of frames in ``owned``, several partitions at once in worker threads."""

    def __init__(self, log: Log, intake: BatchIntake, owned: Mapping[TopicPartition, OwnedPartition]) -> None:
        self._log, self._intake, self._owned = log, intake, owned
        self._undrained: set[TopicPartition] = set()
        self._pool = ThreadPoolExecutor(cpu_count(), thread_name_prefix="prepare")
        self._preparing = False

    def add(self, tp: TopicPartition) -> None:
        """Begin to read a partition of frames, but only after all earlier batches of the same lane (live or late) are
        written."""
        self._undrained.add(tp)

    def drop(self, tp: TopicPartition) -> None:
        """Forget a partition that was revoked."""
        self._undrained.discard(tp)

    async def begin_drained(self) -> None:
        """Begin to read the partitions of frames whose lane (live or late) has no unwritten batches left."""
        for tp in list(self._undrained):
            owned, batches = self._owned.get(tp), self._owned.get(batches_of(tp))
            if not isinstance(owned, OwnedFrames) or batches is None or batches.in_flight:
                continue  # released during an earlier await, or not drained yet
            drained = await self._intake.position(batches.tp) >= owned.batches_end
            if drained and self._owned.get(tp) is owned:  # else released, or taken over again, during this await
                self._undrained.discard(tp)
                self._intake.begin(tp, owned.start.offset)

    def due(self, now_s: float) -> dict[OwnedFrames, list[LogRecord]]:
        """Return the partitions with an open batch whose maximum delay has passed, as keys of a dict with empty lists
        of records."""
        return {owned: [] for owned in self._frames() if owned.is_due(now_s)}

    async def deliver(self, owned: OwnedFrames, record: LogRecord) -> Gap | None:
        """Note that a frame is about to be prepared. If the log has no records between the previously delivered
        offset and the frame, return the missing offsets.

        If the topic was created again, let the next owner of the partition read it from the beginning, and raise
        LogUnavailable, which ends the node.
        """
        expected = owned.next
        if not owned.deliver(record):
            await commit(self._log, ENGINES, owned.tp, BEYOND_EVERY_END)
            raise LogUnavailable(f"{owned.tp.topic} was created again while it was read: restart the node")
        return (owned.tp, expected, record.offset) if record.offset > expected else None

    async def jobs(
        self, frames: Mapping[OwnedFrames, Sequence[LogRecord]], models: LiveModels, now_s: float
    ) -> list[tuple[OwnedFrames, Job]]:
        """Prepare delivered frames of several partitions at once, and return the jobs of the closed batches.

        If a partition was released meanwhile, return no jobs of it, because its next owner reads the frames again.
        """
        loop, self._preparing = asyncio.get_running_loop(), True
        calls = (partial(owned.prepare, records, now_s) for owned, records in frames.items())
        works = await asyncio.gather(*(loop.run_in_executor(self._pool, call) for call in calls))
        self._preparing = False  # after a cancellation the threads may still run, so that nothing may be flushed
        return _jobs(
            {owned: found for owned, found in zip(frames, works, strict=True) if self._owned.get(owned.tp) is owned},
            models,
        )

    def flush(self, models: LiveModels) -> list[tuple[OwnedFrames, Job]]:
        """Close all batches that are still being filled, and return their jobs. Do nothing while frames are being
        prepared.

        The node calls this method while no image waits for an engine.
        """
        return [] if self._preparing else _jobs({owned: owned.flush() for owned in self._frames()}, models)

    def _frames(self) -> list[OwnedFrames]:
        return [owned for owned in self._owned.values() if isinstance(owned, OwnedFrames)]

    def close(self) -> None:
        """Start no more work in threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _jobs(works: Mapping[OwnedFrames, Sequence[PreparedWork]], models: LiveModels) -> list[tuple[OwnedFrames, Job]]:
    return [
        (owned, job)
        for owned, found in works.items()
        for work in found
        for job in owned.take_work(work, models.names)
    ]
