"""Which batches are classified together, and which come first. Pure.

Batches of one pipeline are merged up to the model's largest batch, from all partitions in turn; nothing waits for
company, because while one batch is classified the next ones gather. Live goes before late.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from engines.node.jobs import ItemTask, Job
from ingest.contract.topics import BATCHES_LATE
from ingest.kafka.log import TopicPartition


@dataclass(slots=True)
class MergedBatch:
    """Parts that go through the engine in one call, and the jobs that they belong to."""

    pipeline: str
    tasks: list[ItemTask] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return sum(len(task.pictures) for task in self.tasks)


class Scheduler:
    """Holds the jobs that want an engine. ``max_rows`` says how many rows a pipeline's model takes at once."""

    def __init__(self, max_rows: Callable[[str], int]) -> None:
        self._max_rows = max_rows
        self._queues: OrderedDict[TopicPartition, deque[Job]] = OrderedDict()
        self._rows: Counter[str] = Counter()

    @property
    def waiting(self) -> int:
        """How many rows wait."""
        return self._rows.total()

    def waiting_in(self, topic: str) -> int:
        """Return how many rows of a topic's batches wait."""
        return self._rows[topic]

    def add(self, tp: TopicPartition, job: Job) -> None:
        """Queue a job of a tp, behind the tp's others."""
        self._queues.setdefault(tp, deque()).append(job)
        self._rows[tp.topic] += job.rows

    def drop(self, tp: TopicPartition) -> None:
        """Forget a tp's jobs: its partition belongs to another node now."""
        self._rows[tp.topic] -= sum(job.rows for job in self._queues.pop(tp, ()))

    def next(self) -> MergedBatch | None:
        """Return what to classify next, None when nothing waits.

        The tp that has waited longest since its last turn decides on the pipeline; others add what fits.
        """
        order = sorted(self._queues, key=lambda tp: tp.topic == BATCHES_LATE)  # stable: keeps the turns
        first = next((tp for tp in order if self._queues[tp]), None)
        if first is None:
            return None
        pipeline = self._queues[first][0].pipeline
        merged = MergedBatch(pipeline)
        for tp in order:
            if tp.topic == BATCHES_LATE and first.topic != BATCHES_LATE:
                break
            self._take(tp, merged)
        return merged

    def _take(self, tp: TopicPartition, merged: MergedBatch) -> None:
        queue, limit = self._queues[tp], self._max_rows(merged.pipeline)
        taken = False
        while queue and queue[0].pipeline == merged.pipeline:
            if merged.tasks and merged.rows + queue[0].rows > limit:
                break
            job = queue.popleft()
            self._rows[tp.topic] -= job.rows
            merged.jobs.append(job)
            merged.tasks += [task for task in job.tasks.values() if not task.settled]
            taken = True
        if taken:
            self._queues.move_to_end(tp)
