"""Overload of a node: its measurement, and how far each pipeline reduces its work by the policy of its configuration.

Pure. Time is cut into periods. A node is saturated in a period if work waits for most of it. A pipeline reduces its
work while the node is saturated, most of its regions miss the latency goal, and their age does not fall. Late frames
alone are no overload: an earlier stage may have been slow. A pipeline takes a reduction back once the measured load
leaves room for it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from ingest.site.pipeline import Overload

PERIOD_S = 1.0
"""Length of a period in s. It is many batches, and short compared with a load that users notice."""
SATURATED_SHARE = 0.8
"""Share of a period for which work must wait, for a saturated node."""
SETTLE_PERIODS = 2
"""Number of periods between two steps up, in which the frames that waited before the first step are classified."""
CALM_PERIODS = 5
"""Number of calm periods before a step down. With ``HEADROOM`` it prevents a step down and up every few seconds."""
HEADROOM = 0.8
"""Share of the device's capacity that the expected load may use after a step down."""
RECOVERY_S = 0.2
"""Fall of the mean age of classified regions in one period from which no further step is needed: the backlog shrinks.
"""
CAPACITY_MEMORY = 0.5
"""Weight of earlier saturated periods in the capacity of the device."""
MOST_NTH = 30
"""Largest n of every-nth: one frame a second of a fast camera."""


@dataclass(frozen=True, slots=True)
class PeriodLoad:
    """Load of the device in one period: device seconds per second, by pipeline. ``capacity`` is the highest total."""

    saturated: bool
    used: Mapping[str, float]
    capacity: float

    def fits(self, pipeline: str, factor: float) -> bool:
        """Return whether the device has room if the load of a pipeline is multiplied by ``factor``."""
        total = sum(self.used.values()) + self.used.get(pipeline, 0.0) * (factor - 1.0)
        return total <= HEADROOM * self.capacity


class DeviceLoad:
    """Measures the load of the device. Its capacity is the load of saturated periods. Times in s never go back."""

    def __init__(self) -> None:
        self._began_s: float | None = None
        self._noted_s = 0.0
        self._waiting = False
        self._waiting_s = 0.0
        self._used_s: defaultdict[str, float] = defaultdict(float)
        self._capacity = 0.0

    def use(self, pipeline: str, seconds: float) -> None:
        """Add device time of a pipeline."""
        self._used_s[pipeline] += seconds

    def note(self, now_s: float, waiting: bool) -> PeriodLoad | None:
        """Note whether work waits from now on. Return the load of a period that has ended, else None."""
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
    """The reduction of one pipeline. ``degree`` is 1 without a reduction.

    With ``every-nth``, each n-th frame of a camera is kept, and n is the degree. With ``lighter``, the degree 2
    stands for the lighter model. The policy ``shed`` needs no degree, because the age of each frame decides.
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
        """Whether the lighter model classifies."""
        return self.policy == "lighter" and self.degree > 1

    def keeps(self, camera: str) -> bool:
        """Return whether to keep the next frame of a camera."""
        if self.policy != "every-nth" or self.degree == 1:
            return True
        self._frames[camera] += 1
        return self._frames[camera] % self.degree == 0

    def classified(self, rows: int, age_s: float, goal_s: float) -> None:
        """Add rows that are being classified, with the expected age of their results."""
        self._rows += rows
        self._age_s += rows * age_s
        self._late_rows += rows if age_s > goal_s else 0

    def end_period(self, load: PeriodLoad, lighter_factor: float) -> bool:
        """Change the degree by the load of a period. Return whether the degree has changed.

        ``lighter_factor`` is the time per row of the usual model divided by that of the lighter one.
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
