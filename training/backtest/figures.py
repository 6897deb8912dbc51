"""The figures of a backtest. The figures of several partitions or of several processes can be added. Pure."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from engines.shadow.compare import DetectionComparison
from engines.shadow.report import LabelCounts, count_labels
from stream.explain.comparison import RuleDifference

_STEP = math.log(1.05)
"""Width of one bin in the histogram of durations, as a natural logarithm. A quantile of the durations is exact to 2.5
%."""
_LEAST_S = 1e-7
STAGES = ("prepare", "copy", "compute", "decode", "cascade", "analyse")


@dataclass
class Durations:
    """Durations of one stage for one frame each, in s, counted in bins of equal ratio."""

    total_s: float = 0.0
    counts: dict[int, int] = field(default_factory=dict)

    def add(self, seconds: float, frames: int = 1) -> None:
        """Add ``seconds`` that ``frames`` frames took together."""
        if not frames:
            return
        self.total_s += seconds
        place = round(math.log(max(seconds / frames, _LEAST_S)) / _STEP)
        self.counts[place] = self.counts.get(place, 0) + frames

    def merge(self, other: Durations) -> None:
        """Add the durations that ``other`` has counted."""
        self.total_s += other.total_s
        for place, count in other.counts.items():
            self.counts[place] = self.counts.get(place, 0) + count

    @property
    def mean_ms(self) -> float:
        """Mean duration in ms; 0 without durations."""
        frames = sum(self.counts.values())
        return 1000 * self.total_s / frames if frames else 0.0

    def quantile_ms(self, share: float) -> float:
        """Return the duration in ms that a share of the frames does not exceed; 0 without durations."""
        left = share * sum(self.counts.values())
        for place in sorted(self.counts):
            left -= self.counts[place]
            if left <= 0:
                return 1000 * math.exp(place * _STEP)
        return 0.0


@dataclass
class BacktestFigures:
    """The outcome of a backtest on some partitions of frames.

    ``frames`` counts results: one for each frame and pipeline. ``failed`` counts frames for which the candidate, or
    another stage, raised an error. ``compared`` frames were classified both live and in the backtest. ``recorded_s``
    is the time between the first and the last capture, summed over the cameras and lanes.
    """

    frames: int = 0
    classified: int = 0
    failed: int = 0
    compared: int = 0
    agreeing: int = 0
    shed_live: int = 0
    """Frames that the live pipeline shed, and that the backtest therefore did not classify either."""
    lighter_live: int = 0
    """Frames that the lighter model of the pipeline classified live, and that are therefore not compared."""
    missing_live: int = 0
    """Frames without a stored result of the live pipeline."""
    served: dict[str, int] = field(default_factory=dict)
    """Number of compared frames by the model that classified them live, or that classified objects in them live."""
    labels: dict[str, LabelCounts] = field(default_factory=dict)
    rules: dict[str, RuleDifference] = field(default_factory=lambda: defaultdict(RuleDifference))
    stages: dict[str, Durations] = field(default_factory=dict)
    frame: Durations = field(default_factory=Durations)
    """Time of one frame in all stages."""
    recorded_s: float = 0.0
    cpu_s: float = 0.0
    wall_s: float = 0.0
    members: int = 1

    def note_comparison(self, served: Iterable[str], compared: DetectionComparison) -> None:
        """Add the comparison of one frame's detections with those of the live models ``served``, second-stage models
        included."""
        self.compared += 1
        for model in served:
            self.served[model] = self.served.get(model, 0) + 1
        self.agreeing += all(one.form == "score" for one in compared.differences)
        count_labels(self.labels, compared.agreed, compared.differences)

    def note_stage(self, stage: str, seconds: float, frames: int) -> None:
        """Add the total time in s that a stage took for ``frames`` frames."""
        self.stages.setdefault(stage, Durations()).add(seconds, frames)

    def merge(self, other: BacktestFigures) -> None:
        """Add the figures of other partitions. Wall times are added, because the partitions of one process run one
        after another."""
        for name in ("frames", "classified", "failed", "compared", "agreeing", "shed_live", "lighter_live"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.missing_live += other.missing_live
        self.recorded_s += other.recorded_s
        self.cpu_s += other.cpu_s
        self.wall_s += other.wall_s
        self.served = dict(Counter(self.served) + Counter(other.served))
        self.frame.merge(other.frame)
        for stage, durations in other.stages.items():
            self.stages.setdefault(stage, Durations()).merge(durations)
        for label, counts in other.labels.items():
            own = self.labels.setdefault(label, LabelCounts())
            own.found, own.missed = own.found + counts.found, own.missed + counts.missed
            own.relabelled, own.extra = own.relabelled + counts.relabelled, own.extra + counts.extra
        for rule, difference in other.rules.items():
            self.rules.setdefault(rule, RuleDifference()).merge(difference)

    @property
    def live_objects(self) -> int:
        """Number of objects in the live results of the compared frames."""
        return sum(one.found + one.missed + one.relabelled for one in self.labels.values())

    @property
    def agreement(self) -> float:
        """Share of the live objects that the candidate found with the same label; 1 without objects."""
        return sum(one.found for one in self.labels.values()) / self.live_objects if self.live_objects else 1.0

    @property
    def live_events(self) -> int:
        """Number of events that the live pipeline emitted for the tested frames."""
        return sum(one.equal + one.moved + one.lost for one in self.rules.values())

    @property
    def lost_share(self) -> float:
        """Lost events as a share of the live events."""
        return sum(one.lost for one in self.rules.values()) / max(1, self.live_events)

    @property
    def gained_share(self) -> float:
        """Gained events as a share of the live events, or the number of gained events if there are no live events."""
        return sum(one.gained for one in self.rules.values()) / max(1, self.live_events)

    @property
    def cpu_ms_per_frame(self) -> float:
        """Mean CPU time of one frame in ms, including the time to read from Kafka."""
        return 1000 * self.cpu_s / max(1, self.frames)

    @property
    def speed(self) -> float:
        """Recorded time divided by the time of the backtest: how many times faster than real time one camera was."""
        return self.recorded_s / self.wall_s if self.wall_s else 0.0
