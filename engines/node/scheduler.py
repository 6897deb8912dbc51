"""The scheduler decides which batches an engine classifies next, and which batches are merged.

Pure. The scheduler merges batches of one pipeline up to the model's batch size, taking partitions in turn. The
scheduler never waits for more batches, because further batches arrive while the engine classifies. Live batches go
before late ones.
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
    """The tasks of one engine call, and the jobs that the tasks belong to."""

    pipeline: str
    tasks: list[ItemTask] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """Number of rows of the engine call. Each region is one row."""
        return sum(len(task.images) for task in self.tasks)


class Scheduler:
    """Queues of the jobs that need an engine, one per topic partition.

    ``max_rows(pipeline)`` returns the maximum number of rows of a merged batch. A job with more rows is classified
    alone. While ``is_loading(pipeline)`` is true, a topic partition whose first job needs that pipeline is blocked:
    its jobs wait, and the jobs of other topic partitions go on.
    """

    def __init__(
        self, max_rows: Callable[[str], int], is_loading: Callable[[str], bool] = lambda _pipeline: False
    ) -> None:
        self._max_rows = max_rows
        self._is_loading = is_loading
        self._queues: OrderedDict[TopicPartition, deque[Job]] = OrderedDict()
        self._rows: Counter[TopicPartition] = Counter()

    @property
    def waiting(self) -> int:
        """Number of rows that wait for an engine."""
        return self._rows.total()

    def waiting_in(self, topic: str) -> int:
        """Return the number of rows from one topic that wait for an engine, without those of blocked partitions."""
        blocked = self.blocked()
        return sum(rows for tp, rows in self._rows.items() if tp.topic == topic and tp not in blocked)

    def blocked(self) -> set[TopicPartition]:
        """Return the topic partitions whose first job waits for a model that is still loading."""
        return {tp for tp, queue in self._queues.items() if queue and self._is_loading(queue[0].pipeline)}

    def add(self, tp: TopicPartition, job: Job) -> None:
        """Append a job to the queue of its topic partition."""
        self._queues.setdefault(tp, deque()).append(job)
        self._rows[tp] += job.rows

    def drop(self, tp: TopicPartition) -> None:
        """Discard the jobs of a topic partition that was revoked."""
        self._queues.pop(tp, None)
        del self._rows[tp]

    def next(self) -> MergedBatch | None:
        """Return the next batch to classify; None if no job can be classified now.

        The topic partition that has waited longest determines the pipeline. Other topic partitions add jobs of the
        same pipeline that fit into the batch.
        """
        blocked = self.blocked()
        order = sorted(  # a stable sort: topic partitions keep their turns
            (tp for tp in self._queues if tp not in blocked), key=lambda tp: tp.topic == BATCHES_LATE
        )
        first = next((tp for tp in order if self._queues[tp]), None)
        if first is None:
            return None
        merged = MergedBatch(self._queues[first][0].pipeline)
        for tp in order:
            if tp.topic == BATCHES_LATE and first.topic != BATCHES_LATE:
                break
            self._move_jobs(tp, merged)
        return merged

    def _move_jobs(self, tp: TopicPartition, merged: MergedBatch) -> None:
        queue, limit = self._queues[tp], self._max_rows(merged.pipeline)
        had_turn = False
        while queue and queue[0].pipeline == merged.pipeline:
            if merged.tasks and merged.rows + queue[0].rows > limit:
                break
            job = queue.popleft()
            self._rows[tp] -= job.rows
            merged.jobs.append(job)
            merged.tasks += [task for task in job.tasks.values() if not task.settled]
            had_turn = True
        if had_turn:
            self._queues.move_to_end(tp)
