"""Which batches are classified together, and which come first. Pure.

Batches of one pipeline are merged up to the model's largest batch, from all partitions in turn; nothing waits for
company, because while one batch is classified the next ones gather. Live goes before late.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from engines.jobs import Job, Part
from ingest.log import Slot
from ingest.topics import BATCHES_LATE

__all__ = ["Merged", "Scheduler"]


@dataclass(slots=True)
class Merged:
    """Parts that go through the engine in one call, and the jobs that they belong to."""

    pipeline: str
    parts: list[Part] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return sum(len(part.pictures) for part in self.parts)


class Scheduler:
    """Holds the jobs that want an engine. ``max_rows`` says how many rows a pipeline's model takes at once."""

    def __init__(self, max_rows: Callable[[str], int]) -> None:
        self._max_rows = max_rows
        self._queues: OrderedDict[Slot, deque[Job]] = OrderedDict()
        self._rows: Counter[str] = Counter()

    @property
    def waiting(self) -> int:
        """How many rows wait."""
        return self._rows.total()

    def waiting_in(self, topic: str) -> int:
        """Return how many rows of a topic's batches wait."""
        return self._rows[topic]

    def add(self, slot: Slot, job: Job) -> None:
        """Queue a job of a slot, behind the slot's others."""
        self._queues.setdefault(slot, deque()).append(job)
        self._rows[slot.topic] += job.rows

    def drop(self, slot: Slot) -> None:
        """Forget a slot's jobs: its partition belongs to another node now."""
        self._rows[slot.topic] -= sum(job.rows for job in self._queues.pop(slot, ()))

    def next(self) -> Merged | None:
        """Return what to classify next, None when nothing waits.

        The slot that has waited longest since its last turn decides on the pipeline; others add what fits.
        """
        order = sorted(self._queues, key=lambda slot: slot.topic == BATCHES_LATE)  # stable: keeps the turns
        first = next((slot for slot in order if self._queues[slot]), None)
        if first is None:
            return None
        pipeline = self._queues[first][0].pipeline
        merged = Merged(pipeline)
        for slot in order:
            if slot.topic == BATCHES_LATE and first.topic != BATCHES_LATE:
                break
            self._take(slot, merged)
        return merged

    def _take(self, slot: Slot, merged: Merged) -> None:
        queue, limit = self._queues[slot], self._max_rows(merged.pipeline)
        taken = False
        while queue and queue[0].pipeline == merged.pipeline:
            if merged.parts and merged.rows + queue[0].rows > limit:
                break
            job = queue.popleft()
            self._rows[slot.topic] -= job.rows
            merged.jobs.append(job)
            merged.parts += [part for part in job.parts.values() if not part.settled]
            taken = True
        if taken:
            self._queues.move_to_end(slot)
