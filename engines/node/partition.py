"""One input partition of the node: its transactional writer, its marks, its jobs in the order of their offsets."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from engines.node.jobs import Job, accept, results
from engines.node.marks import HighWaterMarks
from ingest.kafka.log import LogRecord, Outgoing, TopicPartition, Writer

GROUP = "engines"
MAX_COMMIT_JOBS = 64
"""So many jobs go into one transaction at the most: it stays small, and commits in tens of milliseconds."""


class OwnedPartition:
    """Jobs are taken in the order of their offsets and written in that order, whatever order they are settled in."""

    def __init__(self, tp: TopicPartition, writer: Writer, marks: HighWaterMarks, position: int) -> None:
        self.tp = tp
        self.position = position
        """The next offset to be read when the tp was taken over."""
        self._writer = writer
        self._marks = marks
        self._jobs: deque[Job] = deque()
        self._settled_at: float | None = None
        self._bytes = 0
        self.writing = False

    @property
    def in_flight(self) -> int:
        """How many jobs are not written yet."""
        return len(self._jobs)

    @property
    def in_flight_bytes(self) -> int:
        """How large their records are."""
        return self._bytes

    def take(self, record: LogRecord, pipelines: frozenset[str]) -> Job:
        """Read a record and return its job, which has a place among the tp's others from now on."""
        job = accept(record, self._marks, pipelines)
        self._jobs.append(job)
        self._bytes += len(record.value)
        return job

    def due(self, now_s: float, patience_s: float) -> float | None:
        """Return the monotonic time from which on the settled jobs at the head should be written, None for none.

        At once when nothing behind them is on its way, or when a transaction is full; else they wait for company,
        for ``patience_s`` at the most.
        """
        if self.writing or not self._jobs or not self._jobs[0].settled:
            self._settled_at = None
            return None
        if self._settled_at is None:
            self._settled_at = now_s
        whole = all(job.settled for job in self._jobs)
        full = len(self._jobs) >= MAX_COMMIT_JOBS and len(self._settled()) == MAX_COMMIT_JOBS
        return now_s if whole or full else self._settled_at + patience_s

    async def write(self, now_ns: Callable[[], int]) -> int:
        """Write what is settled at the head, with the offsets, in one transaction. Return the number of records.

        Raise Fenced or LogUnavailable; then this tp is of no further use.
        """
        self.writing = True
        try:
            jobs = self._settled()
            records: list[Outgoing] = [record for job in jobs for record in results(job, now_ns())]
            await self._writer.write(records, GROUP, {self.tp: jobs[-1].record.offset + 1})
            for _ in jobs:
                self._bytes -= len(self._jobs.popleft().record.value)
            return len(records)
        finally:
            self.writing = False

    async def close(self) -> None:
        """Abort what is open. What was not written is read again by the next owner."""
        await self._writer.close()

    def _settled(self) -> list[Job]:
        jobs: list[Job] = []
        for job in self._jobs:
            if not job.settled or len(jobs) == MAX_COMMIT_JOBS:
                break
            jobs.append(job)
        return jobs
