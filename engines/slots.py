"""One input partition of the node: its transactional writer, its marks, its jobs in the order of their offsets."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from engines.jobs import Job, accept, marks_from, results
from engines.marks import Marks
from ingest import headers as h
from ingest.log import Log, LogRecord, Outgoing, Slot, Writer
from ingest.topics import DEADLETTER, RESULTS

__all__ = ["GROUP", "MARKS_TAIL", "OwnedSlot", "open_slot"]

GROUP = "engines"
MARKS_TAIL = 20_000
"""How many results of a partition are read back for the marks. What prepare repeats after a crash is what it had not
committed, under a second's worth; what an agent repeats is what was in flight. At a hundred frames a second this is
more than three minutes."""
MAX_COMMIT_JOBS = 64
"""So many jobs go into one transaction at the most: it stays small, and commits in tens of milliseconds."""


class OwnedSlot:
    """Jobs are taken in the order of their offsets and written in that order, whatever order they are settled in."""

    def __init__(self, slot: Slot, writer: Writer, marks: Marks, position: int) -> None:
        self.slot = slot
        self.position = position
        """The next offset to be read when the slot was taken over."""
        self._writer = writer
        self._marks = marks
        self._jobs: deque[Job] = deque()
        self._settled_at: float | None = None
        self.writing = False

    @property
    def in_flight(self) -> int:
        """How many jobs are not written yet."""
        return len(self._jobs)

    @property
    def in_flight_bytes(self) -> int:
        """How large their records are."""
        return sum(len(job.record.value) for job in self._jobs)

    def take(self, record: LogRecord, pipelines: frozenset[str]) -> Job:
        """Read a record and return its job, which has a place among the slot's others from now on."""
        job = accept(record, self._marks, pipelines)
        self._jobs.append(job)
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

        Raise Fenced or LogUnavailable; then this slot is of no further use.
        """
        self.writing = True
        try:
            jobs = self._settled()
            records: list[Outgoing] = [record for job in jobs for record in results(job, now_ns())]
            await self._writer.write(records, GROUP, {self.slot: jobs[-1].record.offset + 1})
            for _ in jobs:
                self._jobs.popleft()
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


async def open_slot(log: Log, slot: Slot) -> OwnedSlot:
    """Take a partition over, in the order that makes it safe.

    First the transactional id, which aborts what the old owner left open and fences it; then the committed offset,
    which nobody else can move any more; then the marks, from what is committed. Raise LogUnavailable.
    """
    writer = await log.writer(f"engines-{slot.topic}-{slot.partition}")
    committed = await log.committed(GROUP, slot)
    position = committed if committed is not None else (await log.beginnings(slot.topic))[slot.partition]
    return OwnedSlot(slot, writer, await _marks(log, slot), position)


async def _marks(log: Log, slot: Slot) -> Marks:
    marks = Marks()
    end = (await log.ends(RESULTS))[slot.partition]
    begin = max((await log.beginnings(RESULTS))[slot.partition], end - MARKS_TAIL)
    marks_from([r async for r in log.read(RESULTS, slot.partition, begin, end)], marks)
    end, begin = (await log.ends(DEADLETTER))[0], (await log.beginnings(DEADLETTER))[0]
    letters = [r async for r in log.read(DEADLETTER, 0, max(begin, end - MARKS_TAIL), end)]
    marks_from([r for r in letters if _ours(r, slot)], marks)
    return marks


def _ours(letter: LogRecord, slot: Slot) -> bool:
    failure = h.read_failure(letter.headers)
    return failure is not None and (failure.topic, failure.partition) == slot
