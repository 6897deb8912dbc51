"""Learn the time of a batch as a function of its size, and choose the batch size that meets the most deadlines.

Pure.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import NamedTuple

RUNS_PER_SIZE = 9
"""Number of measured runs to keep for each batch size; the predicted time of a batch is the median of these runs. Up
to four slow runs among nine do not make the median slow."""
HALF_LIFE_RUNS = 100
"""The weight of a batch size is halved after this number of runs of other batch sizes."""
FORGET_RUNS = 8 * HALF_LIFE_RUNS
"""A batch size is forgotten after this number of runs of other batch sizes."""


class BatchTime:
    """Predicts the time in s of a batch of n images as ``a·n + b``, with ``a`` and ``b`` at least 0.

    ``a`` and ``b`` come from a weighted least-squares fit to the median time of each batch size. Medians ignore
    single slow runs. Old runs have less weight, so that the prediction follows a device that becomes slower or
    faster.
    """

    def __init__(self, first_runs_s: Mapping[int, float] | None = None) -> None:
        self._runs_s: dict[int, deque[float]] = {}
        self._last_run: dict[int, int] = {}
        self._count = 0
        self._slope_s = self._base_s = 0.0
        for rows, seconds in (first_runs_s or {}).items():
            self.observe(rows, seconds)

    def observe(self, rows: int, seconds: float) -> None:
        """Note the measured time in s of a batch of ``rows`` images."""
        self._count += 1
        self._runs_s.setdefault(rows, deque(maxlen=RUNS_PER_SIZE)).append(seconds)
        self._last_run[rows] = self._count
        for size in [n for n, last in self._last_run.items() if self._count - last > FORGET_RUNS]:
            del self._runs_s[size], self._last_run[size]
        self._fit()

    def predict_s(self, rows: int) -> float:
        """Return the expected time of a batch in seconds; 0 before the first run.

        A larger batch never has a shorter expected time.
        """
        return self._slope_s * rows + self._base_s

    def _fit(self) -> None:
        points = [(n, median(runs), self._weight(n)) for n, runs in self._runs_s.items()]
        total = sum(w for _, _, w in points)
        mean_n = sum(w * n for n, _, w in points) / total
        mean_s = sum(w * s for _, s, w in points) / total
        spread = sum(w * (n - mean_n) ** 2 for n, _, w in points)
        slope_s = sum(w * (n - mean_n) * (s - mean_s) for n, s, w in points) / spread if len(points) > 1 else -1.0
        base_s = mean_s - slope_s * mean_n
        if len(points) > 1 and slope_s < 0.0:  # larger batches seem faster: noise
            slope_s, base_s = 0.0, mean_s
        elif len(points) == 1 or base_s < 0.0:  # a line through the origin
            slope_s, base_s = sum(w * n * s for n, s, w in points) / sum(w * n * n for n, _, w in points), 0.0
        self._slope_s, self._base_s = slope_s, base_s

    def _weight(self, rows: int) -> float:
        age_runs = self._count - self._last_run[rows]
        return float(len(self._runs_s[rows]) * 0.5 ** (age_runs / HALF_LIFE_RUNS))


class WaitingJob(NamedTuple):
    """A waiting job: its number of images, and the time in s from now until its results are due.

    An overdue job has a negative time.
    """

    rows: int
    due_s: float


def best_count(jobs: Sequence[WaitingJob], fitting: int, most_rows: int, predict_s: Callable[[int], float]) -> int:
    """Return how many of the first jobs to classify together in one batch.

    ``jobs`` are all waiting jobs in the order of their deadlines; the first ``fitting`` jobs fit into one batch.
    If all jobs of the largest batch meet their deadlines, return ``fitting``, the size of this batch. If a job of the
    full batch would be late, consider one smaller batch for each job: the largest batch that still meets this job's
    deadline. Choose the batch with which the most images meet their deadlines, on the assumption that the remaining
    jobs follow in batches of ``most_rows`` images. Of equally good batches choose the largest, because larger batches
    take less time per image.
    """
    ends = _finish_times(jobs[:fitting], predict_s)
    if min((job.due_s for job in jobs[:fitting]), default=0.0) >= ends[-1]:
        return fitting
    candidates = {fitting}
    for job in jobs[:fitting]:  # the largest batch that still meets the deadline of this job
        in_time = sum(end <= job.due_s for end in ends)
        candidates.add(max(1, in_time))
    return max(candidates, key=lambda count: (_rows_in_time(jobs, count, most_rows, predict_s), count))


def _finish_times(jobs: Sequence[WaitingJob], predict_s: Callable[[int], float]) -> list[float]:
    """Return the expected times in s of batches of the first job, the first two jobs, and so on up to all jobs."""
    rows, ends = 0, []
    for job in jobs:
        rows += job.rows
        ends.append(predict_s(rows))
    return ends


def _rows_in_time(jobs: Sequence[WaitingJob], first: int, most_rows: int, predict_s: Callable[[int], float]) -> int:
    """Return how many images meet their deadlines if the first batch has ``first`` jobs and later batches are
    full."""
    in_time, now_s, begin, size = 0, 0.0, 0, first
    while begin < len(jobs):
        batch = jobs[begin : begin + size]
        now_s += predict_s(sum(job.rows for job in batch))
        in_time += sum(job.rows for job in batch if job.due_s >= now_s)
        begin += size
        size, rows = 0, 0
        while begin + size < len(jobs) and (not size or rows + jobs[begin + size].rows <= most_rows):
            rows += jobs[begin + size].rows
            size += 1
    return in_time
