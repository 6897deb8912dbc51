"""The scheduler decides which batches an engine classifies next, and which batches are merged.

Pure. The scheduler first chooses a pipeline by fair shares of device time. The scheduler then merges jobs of the
chosen pipeline from all topic partitions, the earliest deadline first, up to the batch size with which the largest
number of regions meet their deadlines. The scheduler never waits for more batches, because further batches arrive
while the engine classifies. Live batches are classified before late batches. Under overload, the scheduler applies
the overload policy of each pipeline to live frames.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from engines.node.batchtime import WaitingJob, best_count
from engines.node.fairshare import Demand, FairShares
from engines.node.jobs import ItemTask, Job
from engines.node.overload import OverloadPolicies, PipelineModels
from ingest.contract.topics import LATE_TOPICS
from ingest.kafka.log import TopicPartition
from ingest.site.pipeline import Priority

LEVELS: tuple[Priority, ...] = ("high", "normal", "low")
LOOK_AHEAD = 2
"""Number of full batches after the next batch whose deadlines are considered when the size of the next batch is
chosen. If more batches were considered, choosing the size of a batch would take longer."""
LATE_LEVEL = len(LEVELS)
"""Priority level of all late batches, which is below every level of live batches."""


class QueueKey(NamedTuple):
    """Key of a queue: the pipeline, and whether the queue holds late batches or live batches."""

    pipeline: str
    late: bool


@dataclass(slots=True)
class StageSeconds:
    """Measured time of a merged batch, in seconds: decoding and copying its pictures into the slot,
    computing, and decoding its outputs.

    ``cascade`` is the time of all second-stage models; 0 if the pipeline has no second-stage models.
    """

    copy: float = 0.0
    compute: float = 0.0
    decode: float = 0.0
    cascade: float = 0.0

    @property
    def device_s(self) -> float:
        """Time in s for which the batch occupied the device.

        The whole time of the second-stage models is included, because second-stage models delay the results of the
        batch.
        """
        return self.compute + self.cascade


@dataclass(slots=True)
class MergedBatch:
    """The tasks of one engine call, and the jobs that the tasks belong to."""

    pipeline: str
    tasks: list[ItemTask] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)
    late: bool = False
    lighter: bool = False
    """Whether the pipeline's lighter model classifies the batch."""
    expected_s: float = 0.0
    """Expected device time in s, which is charged to the pipeline until the measured time is known."""
    took: StageSeconds = field(default_factory=StageSeconds)

    @property
    def rows(self) -> int:
        """Number of rows of the engine call: one row for each region of a frame."""
        return sum(task.rows for task in self.tasks)


class Scheduler:
    """Queues of the jobs that need an engine, per pipeline, lane and topic partition.

    Jobs of a topic partition and pipeline are classified in offset order. A job with more regions than the model's
    largest batch is classified alone. While the model of a pipeline is loading, the pipeline's jobs wait, and no more
    records are read from the topic partitions of these jobs. Times in ns are Unix times.
    """

    def __init__(self, models: PipelineModels) -> None:
        self._models = models
        self._queues: defaultdict[QueueKey, dict[TopicPartition, deque[Job]]] = defaultdict(dict)
        self._rows: Counter[TopicPartition] = Counter()
        self._shares: FairShares[QueueKey] = FairShares()
        self.policies = OverloadPolicies(models)
        self.write_s = 0.0
        """Expected time in s from the end of a batch until its results are written. The scheduler subtracts
        ``write_s`` from each deadline."""

    @property
    def waiting(self) -> int:
        """Number of regions that wait for an engine."""
        return self._rows.total()

    def rows_of(self, tp: TopicPartition) -> int:
        """Return the number of regions from one topic partition that wait for an engine."""
        return self._rows[tp]

    def blocked(self) -> set[TopicPartition]:
        """Return the topic partitions with a job that waits for a model that is still loading."""
        loading = [queue for key, queue in self._queues.items() if self._models.is_loading(key.pipeline)]
        return {tp for queue in loading for tp in queue}

    def add(self, tp: TopicPartition, job: Job, now_ns: int) -> None:
        """Append a job to the queue of its pipeline and topic partition, without the frames that the overload policy
        sheds.

        A job whose frames are all shed is not queued. The results of a job are due at the earliest capture time of
        its frames plus the latency goal. A capture time in the future counts as now, and an overdue job is due now,
        so that a camera with a wrong clock does not delay other cameras.
        """
        self.policies.thin(job)
        if job.settled:
            return
        goal_ns = round(self._models.config(job.pipeline).goal_s * 1e9)
        job.queued_ns = now_ns
        job.measure_waiting()
        job.deadline_ns = min(max(job.captured_ns + goal_ns, now_ns), now_ns + goal_ns)
        key = QueueKey(job.pipeline, tp.topic in LATE_TOPICS)
        self._queues[key].setdefault(tp, deque()).append(job)
        self._rows[tp] += job.waiting_rows
        self._shed_crowded(key, tp)
        self._note_waiting(now_ns)

    def drop(self, tp: TopicPartition) -> None:
        """Discard the jobs of a topic partition that was revoked."""
        for key in list(self._queues):
            self._queues[key].pop(tp, None)
            self._forget_empty(key)
        del self._rows[tp]

    def next(self, now_ns: int) -> MergedBatch | None:
        """Return the next batch to classify; None if no job can be classified now.

        Before the choice, drop the frames that would be too old when classified, if their pipeline has the policy
        ``shed``. A job whose frames are all shed leaves the queue.
        """
        for key in list(self._queues):
            self._shed_stale(key, now_ns)
        demands = {
            key: Demand(self._level(key), min(jobs[0].deadline_ns for jobs in queue.values()))
            for key, queue in self._queues.items()
            if not self._models.is_loading(key.pipeline)
        }
        if not demands:
            self._note_waiting(now_ns)
            return None
        key = self._shares.choose(demands)
        merged = MergedBatch(key.pipeline, late=key.late, lighter=self._uses_lighter(key))
        for tp in self._chosen(key, now_ns):
            self._move_job(key, tp, merged)
        self._forget_empty(key)
        merged.expected_s = self._batch_s(key, merged.rows)
        self._shares.charge(key, self._level(key), merged.expected_s)
        if not key.late:
            end_ns = now_ns + round((merged.expected_s + self.write_s) * 1e9)
            self.policies.classified(key.pipeline, merged.tasks, end_ns)
        self._note_waiting(now_ns)
        return merged

    def finished(self, merged: MergedBatch) -> None:
        """Charge the measured device time of a batch to its pipeline, in place of the expected time."""
        key = QueueKey(merged.pipeline, merged.late)
        self._shares.charge(key, self._level(key), merged.took.device_s - merged.expected_s)
        if not merged.late:
            self.policies.use(merged.pipeline, merged.took.device_s)

    def _note_waiting(self, now_ns: int) -> None:
        """Tell the overload policies whether live jobs with a loaded model wait.

        Late jobs do not count, because they only use device time that live jobs leave. Jobs of a loading model use no
        device time.
        """
        waiting = any(not key.late and not self._models.is_loading(key.pipeline) for key in self._queues)
        self.policies.note(now_ns, waiting)

    def _uses_lighter(self, key: QueueKey) -> bool:
        return not key.late and self.policies.uses_lighter(key.pipeline)

    def _max_rows(self, key: QueueKey) -> int:
        return self._models.max_rows(key.pipeline, lighter=self._uses_lighter(key))

    def _batch_s(self, key: QueueKey, rows: int) -> float:
        return self._models.batch_s(key.pipeline, rows, lighter=self._uses_lighter(key))

    def _shed_stale(self, key: QueueKey, now_ns: int) -> None:
        """Shed live frames that would be older than ``freshness_s`` when the results of the next full batch are
        written."""
        config, queue = self._models.config(key.pipeline), self._queues[key]
        if key.late or config.overload != "shed" or not config.freshness_s:
            return
        most_rows, rows = self._max_rows(key), 0
        for job in itertools.islice((job for jobs in queue.values() for job in jobs), most_rows):
            rows += job.waiting_rows
        end_ns = now_ns + round((self._batch_s(key, min(rows, most_rows)) + self.write_s) * 1e9)
        oldest_ns = end_ns - round(config.freshness_s * 1e9)
        for tp, jobs in list(queue.items()):
            stale = [job for job in jobs if job.captured_ns < oldest_ns]
            for job in stale:
                self.policies.shed_stale(job, oldest_ns)
            self._measure(key, tp, stale)
            if not queue[tp]:
                del queue[tp]
        self._forget_empty(key)

    def _shed_crowded(self, key: QueueKey, tp: TopicPartition) -> None:
        """Shed the oldest live frames of each camera of which more than ``max_waiting`` frames wait.

        A camera's frames are all in one topic partition.
        """
        most = self._models.config(key.pipeline).max_waiting
        if key.late or not most:
            return
        jobs, newer = list(self._queues[key][tp]), Counter[str]()
        for job in reversed(jobs):
            self.policies.shed_crowded(job, most, newer)
        self._measure(key, tp, jobs)

    def _measure(self, key: QueueKey, tp: TopicPartition, jobs: Iterable[Job]) -> None:
        """Count the waiting regions of jobs again after some of their frames were shed, and drop settled jobs."""
        for job in jobs:
            self._rows[tp] -= job.waiting_rows
            job.measure_waiting()
            self._rows[tp] += job.waiting_rows
        queue = self._queues[key]
        if any(job.settled for job in queue[tp]):
            queue[tp] = deque(job for job in queue[tp] if not job.settled)

    def _level(self, key: QueueKey) -> int:
        return LATE_LEVEL if key.late else LEVELS.index(self._models.config(key.pipeline).priority)

    def _chosen(self, key: QueueKey, now_ns: int) -> list[TopicPartition]:
        """Return the topic partitions of the jobs to merge into the next batch, in the order of deadlines."""
        most_rows, lighter = self._max_rows(key), self._uses_lighter(key)
        jobs = self._by_deadline(key)
        fitting, behind = self._fill(jobs, most_rows)

        def predict_s(rows: int) -> float:
            return self._models.batch_s(key.pipeline, rows, lighter=lighter)

        config = self._models.config(key.pipeline)
        fresh_s = config.freshness_s if config.overload == "shed" else 0.0
        least_s = predict_s(1) + self.write_s

        def due_of(job: Job) -> WaitingJob:
            """Return when a job is due: at its deadline, or at the time its frames become stale if the deadline
            cannot be met."""
            due_s = (job.deadline_ns - now_ns) / 1e9
            if due_s < least_s and fresh_s:
                due_s = (job.captured_ns - now_ns) / 1e9 + fresh_s
            return WaitingJob(job.waiting_rows, due_s - self.write_s)

        due = [due_of(job) for _, job in fitting]
        if min(job.due_s for job in due) < predict_s(sum(job.rows for job in due)):
            behind += [job for _, job in itertools.islice(jobs, LOOK_AHEAD * most_rows)]
            due += [due_of(job) for job in behind]
        return [tp for tp, _ in fitting[: best_count(due, len(fitting), most_rows, predict_s)]]

    def _fill(
        self, jobs: Iterator[tuple[TopicPartition, Job]], most_rows: int
    ) -> tuple[list[tuple[TopicPartition, Job]], list[Job]]:
        """Take jobs until a batch is full. Return the jobs that fit into the batch, and the jobs that do not fit."""
        fitting, behind, rows = list[tuple[TopicPartition, Job]](), list[Job](), 0
        full: set[TopicPartition] = set()
        for tp, job in jobs:
            if tp in full or (fitting and rows + job.waiting_rows > most_rows):
                full.add(tp)  # the later jobs of a topic partition must not overtake this one
                behind.append(job)
            else:
                fitting.append((tp, job))
                rows += job.waiting_rows
            if rows >= most_rows or len(behind) >= most_rows:
                break
        return fitting, behind

    def _by_deadline(self, key: QueueKey) -> Iterator[tuple[TopicPartition, Job]]:
        """Yield the jobs of a queue, the earliest deadline first, but keep the offset order within each topic
        partition."""
        queue = self._queues[key]
        heads = [(jobs[0].deadline_ns, tp, 0) for tp, jobs in queue.items()]
        heapq.heapify(heads)
        while heads:
            _, tp, at = heapq.heappop(heads)
            jobs = queue[tp]
            yield tp, jobs[at]
            if at + 1 < len(jobs):
                heapq.heappush(heads, (jobs[at + 1].deadline_ns, tp, at + 1))

    def _move_job(self, key: QueueKey, tp: TopicPartition, merged: MergedBatch) -> None:
        jobs = self._queues[key][tp]
        job = jobs.popleft()
        self._rows[tp] -= job.waiting_rows
        merged.jobs.append(job)
        merged.tasks += [task for task in job.tasks.values() if not task.settled]
        if not jobs:
            del self._queues[key][tp]

    def _forget_empty(self, key: QueueKey) -> None:
        if not self._queues[key]:
            del self._queues[key]
