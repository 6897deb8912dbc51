"""Measure the overload of a node, and decide how far each pipeline reduces its work under its overload policy.

Pure. The load is measured in periods of ``PERIOD_S``. Only live frames count, because late frames use the device time
that live frames leave. A node is saturated in a period if live frames wait for a loaded model during most of the
period. A pipeline reduces its work while the node is saturated, most results of the pipeline miss the latency goal,
and the mean age of these results does not fall. Missing the latency goal does not by itself prove overload, because
an earlier stage may have been slow. A pipeline restores its work step by step, once the measured load leaves enough
capacity.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from engines.node.jobs import CROWDED, EVERY_NTH, STALE, ItemTask, Job
from ingest.contract.identity import LIVE
from ingest.contract.records import BatchItem
from ingest.site import PipelineConfig
from ingest.site.pipeline import Overload

PERIOD_S = 1.0
"""Length in s of a measurement period. A period has time for many batches, and is short compared with an overload
that users notice."""
SATURATED_SHARE = 0.8
"""A node is saturated in a period if live frames wait for an engine during at least this fraction of the period."""
SETTLE_PERIODS = 2
"""Minimum number of periods between two increases of a pipeline's reduction. Before the second increase, the frames
that waited before the first increase are classified."""
CALM_PERIODS = 5
"""Number of consecutive periods without overload after which a pipeline's reduction is decreased. Together with
``HEADROOM``, the calm periods keep a reduction from changing every few seconds."""
HEADROOM = 0.8
"""Maximum fraction of the device's capacity that the expected load may use after a reduction is decreased."""
RECOVERY_S = 0.2
"""If the mean age of a pipeline's results falls by more than this time in s within a period, the backlog shrinks and
the pipeline's reduction is not increased."""
CAPACITY_MEMORY = 0.5
"""Weight of earlier saturated periods in the moving average that measures the device's capacity."""
MOST_NTH = 30
"""Largest n of the policy ``every-nth``. With n = 30, a camera of 30 frames a second keeps one frame a second."""


class PipelineModels(Protocol):
    """Interface to the facts about pipelines and models that the scheduler and the overload policies need."""

    def max_rows(self, pipeline: str, *, lighter: bool = False) -> int:
        """Return the maximum number of images worth merging into a batch."""

    def is_loading(self, pipeline: str) -> bool:
        """Return whether a pipeline has no model yet because its first model is still to be loaded."""

    def has_lighter(self, pipeline: str) -> bool:
        """Return whether the lighter model of a pipeline is loaded."""

    def batch_s(self, pipeline: str, rows: int, *, lighter: bool = False) -> float:
        """Return the expected device time in s of a batch of ``rows`` images."""

    def config(self, pipeline: str) -> PipelineConfig:
        """Return the settings of a pipeline."""


@dataclass(frozen=True, slots=True)
class PeriodLoad:
    """Load of the device in one period.

    ``used`` maps a pipeline to its device time in s per second. ``capacity`` is the total device time in s per second
    that the device reaches while it is saturated.
    """

    saturated: bool
    used: Mapping[str, float]
    capacity: float

    def fits(self, pipeline: str, factor: float) -> bool:
        """Return whether the device has enough capacity if the load of one pipeline is multiplied by ``factor``."""
        total = sum(self.used.values()) + self.used.get(pipeline, 0.0) * (factor - 1.0)
        return total <= HEADROOM * self.capacity


class DeviceLoad:
    """Measures the load of a device.

    The capacity of the device is a moving average of its load in saturated periods. All times that callers pass are
    in s, and must not decrease.
    """

    def __init__(self) -> None:
        self._began_s: float | None = None
        self._noted_s = 0.0
        self._waiting = False
        self._waiting_s = 0.0
        self._used_s: defaultdict[str, float] = defaultdict(float)
        self._capacity = 0.0

    def use(self, pipeline: str, seconds: float) -> None:
        """Add device time in s that a pipeline has used."""
        self._used_s[pipeline] += seconds

    def note(self, now_s: float, waiting: bool) -> PeriodLoad | None:
        """Note whether live frames wait for an engine from ``now_s`` on.

        If a period ends at ``now_s``, return the load of the period, else None.
        """
        if self._began_s is None:
            self._began_s = self._noted_s = now_s
        self._waiting_s += max(0.0, now_s - self._noted_s) * self._waiting
        self._noted_s, self._waiting = now_s, waiting
        length_s = now_s - self._began_s
        if length_s < PERIOD_S:
            return None
        used = {pipeline: seconds / length_s for pipeline, seconds in self._used_s.items()}
        saturated = self._waiting_s >= SATURATED_SHARE * length_s
        if saturated:
            total = sum(used.values())
            memory = CAPACITY_MEMORY if self._capacity else 0.0
            self._capacity = memory * self._capacity + (1.0 - memory) * total
        self._began_s, self._waiting_s = now_s, 0.0
        self._used_s.clear()
        return PeriodLoad(saturated, used, self._capacity)


class OverloadControl:
    """Decides how far one pipeline reduces its work while the node is overloaded.

    ``degree`` is 1 while the pipeline does not reduce its work.

    With the policy ``every-nth``, every n-th frame of a camera is kept, where n is ``degree``. With the policy
    ``lighter``, the lighter model classifies while ``degree`` is 2. The policy ``shed`` always has ``degree`` 1,
    because it drops frames by age.
    """

    def __init__(self, pipeline: str, policy: Overload) -> None:
        self.policy = policy
        self.degree = 1
        self.pipeline = pipeline
        self._most = {"shed": 1, "every-nth": MOST_NTH, "lighter": 2}[policy]
        self._rows = self._late_rows = 0
        self._age_s = self._mean_age_s = 0.0
        self._calm = 0
        self._settled = SETTLE_PERIODS
        self._frames: defaultdict[str, int] = defaultdict(int)

    @property
    def lighter(self) -> bool:
        """Whether the lighter model of the pipeline classifies live frames."""
        return self.policy == "lighter" and self.degree > 1

    def keeps(self, camera: str) -> bool:
        """Return whether the policy keeps the next frame of a camera."""
        if self.policy != "every-nth" or self.degree == 1:
            return True
        self._frames[camera] += 1
        return self._frames[camera] % self.degree == 0

    def classified(self, rows: int, age_s: float, goal_s: float) -> None:
        """Add the ``rows`` regions of a classified job to the counts of the current period. ``age_s`` is the time
        from the capture to the writing of the results, in s."""
        self._rows += rows
        self._age_s += rows * age_s
        self._late_rows += rows if age_s > goal_s else 0

    def end_period(self, load: PeriodLoad, lighter_factor: float) -> bool:
        """Adjust ``degree`` to the load of the period that has ended. Return whether ``degree`` has changed.

        ``lighter_factor`` is the usual model's time per image divided by the lighter model's time per image.
        """
        late = 2 * self._late_rows > self._rows
        mean_age_s = self._age_s / self._rows if self._rows else 0.0
        recovers, self._mean_age_s = mean_age_s < self._mean_age_s - RECOVERY_S, mean_age_s
        self._rows, self._late_rows, self._age_s = 0, 0, 0.0
        self._settled += 1
        before = self.degree
        if load.saturated and late:
            self._calm = 0
            if self._settled >= SETTLE_PERIODS and not recovers:
                self.degree = min(self._most, self.degree + max(1, self.degree // 2))
        elif self.degree > 1 and not load.saturated and load.fits(self.pipeline, self._factor_down(lighter_factor)):
            self._calm += 1
            if self._calm >= CALM_PERIODS:
                self.degree, self._calm = self.degree - 1, 0
        else:
            self._calm = 0
        if self.degree != before:
            self._settled = 0
        return self.degree != before

    def _factor_down(self, lighter_factor: float) -> float:
        return lighter_factor if self.policy == "lighter" else self.degree / (self.degree - 1)


class OverloadPolicies:
    """Applies the policies of all pipelines of a node to live frames. Late and replayed frames are never shed."""

    def __init__(self, models: PipelineModels) -> None:
        self._models = models
        self._load = DeviceLoad()
        self._controls: dict[str, OverloadControl] = {}
        self._changed: list[OverloadControl] = []
        self._shed: Counter[tuple[str, str]] = Counter()

    def thin(self, job: Job) -> None:
        """Shed the frames of a new job that the policy ``every-nth`` drops."""
        control = self._control(job.pipeline)
        if control.degree > 1:
            self._count(job, EVERY_NTH, lambda item: item.lane == LIVE and not control.keeps(item.camera))

    def shed_stale(self, job: Job, oldest_ns: int) -> None:
        """Shed the frames of a job that were captured before a Unix time."""
        self._count(job, STALE, lambda item: item.lane == LIVE and item.captured_ns < oldest_ns)

    def shed_crowded(self, job: Job, most: int, newer: Counter[str]) -> None:
        """Shed the frames of a job for which at least ``most`` newer frames of their camera wait.

        ``newer`` has the number of waiting frames by camera, and is increased by the frames of the job.
        """
        crowded = set()
        for task in reversed(job.tasks.values()):
            if not task.settled and task.item.lane == LIVE:
                newer[task.item.camera] += 1
                if newer[task.item.camera] > most:
                    crowded.add(task.item.id)
        self._count(job, CROWDED, lambda item: item.id in crowded)

    def uses_lighter(self, pipeline: str) -> bool:
        """Return whether the lighter model of a pipeline classifies live frames now."""
        return self._control(pipeline).lighter and self._models.has_lighter(pipeline)

    def classified(self, pipeline: str, tasks: Iterable[ItemTask], end_ns: int) -> None:
        """Note the age that live results will have when they are written, at the Unix time ``end_ns``.

        Replayed frames do not count, because they are old when the node reads them.
        """
        control, goal_s = self._control(pipeline), self._models.config(pipeline).goal_s
        for task in (task for task in tasks if task.item.lane == LIVE):
            control.classified(task.rows, (end_ns - task.item.captured_ns) / 1e9, goal_s)

    def use(self, pipeline: str, seconds: float) -> None:
        """Add measured device time in s that live batches of a pipeline have used."""
        self._load.use(pipeline, seconds)

    def note(self, now_ns: int, waiting: bool) -> None:
        """Note whether live frames wait for an engine from ``now_ns`` on.

        At the end of a period, adjust how far every pipeline reduces its work.
        """
        load = self._load.note(now_ns / 1e9, waiting)
        if load is None:
            return
        for pipeline in list(self._controls):
            control = self._control(pipeline)
            if control.end_period(load, self._lighter_factor(pipeline)):
                self._changed.append(control)

    def changed_controls(self) -> list[OverloadControl]:
        """Return the OverloadControls whose ``degree`` has changed since the last call."""
        changed, self._changed = self._changed, []
        return changed

    def shed_counts(self) -> dict[tuple[str, str], int]:
        """Return the number of frames shed since the last call. The keys of the result are (pipeline, reason)."""
        shed, self._shed = self._shed, Counter()
        return shed

    def _count(self, job: Job, reason: str, chosen: Callable[[BatchItem], bool]) -> None:
        if shed := job.shed(reason, chosen):
            self._shed[job.pipeline, reason] += shed

    def _control(self, pipeline: str) -> OverloadControl:
        policy = self._models.config(pipeline).overload
        control = self._controls.get(pipeline)
        if control is None or control.policy != policy:
            before, control = control, OverloadControl(pipeline, policy)
            self._controls[pipeline] = control
            if before and before.degree > 1:
                self._changed.append(control)
        return control

    def _lighter_factor(self, pipeline: str) -> float:
        """Return the usual model's time per image divided by the lighter model's time per image."""
        usual, lighter = (
            self._models.batch_s(pipeline, rows, lighter=lighter) / rows
            for lighter in (False, True)
            for rows in [self._models.max_rows(pipeline, lighter=lighter)]
        )
        return usual / lighter if lighter else 1.0
