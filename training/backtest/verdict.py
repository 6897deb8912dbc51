"""Decide whether a candidate passed its backtest, and make the record of the backtest. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from engines.repository.backtests import BacktestRecord
from stream.events import rfc3339
from training.backtest.figures import STAGES, BacktestFigures, Durations
from training.backtest.plan import BacktestPlan


@dataclass(frozen=True)
class Thresholds:
    """The limits that a candidate must keep. 0 in ``max_frame_ms`` or ``max_cpu_ms`` means no limit.

    The shares of lost and gained events are relative to the events of the live pipeline. ``max_frame_ms`` limits the
    95th percentile of the time of one frame in all stages, ``max_cpu_ms`` the mean CPU time of one frame.
    """

    max_lost: float = 0.05
    max_gained: float = 0.5
    min_agreement: float = 0.9
    max_frame_ms: float = 0.0
    max_cpu_ms: float = 0.0
    min_frames: int = 100

    def reasons(self, figures: BacktestFigures) -> list[str]:
        """Return why the candidate does not pass; an empty list if it passes."""
        return list(self._exceeded(figures))

    def _exceeded(self, figures: BacktestFigures) -> Iterator[str]:
        if figures.compared < self.min_frames:
            yield f"{figures.compared} frames were compared: expected at least {self.min_frames}"
        if figures.lost_share > self.max_lost:
            yield f"{figures.lost_share:.1%} of the live events were lost: expected at most {self.max_lost:.1%}"
        if figures.gained_share > self.max_gained:
            yield (
                f"the gained events are {figures.gained_share:.1%} of the live events: expected at most "
                f"{self.max_gained:.1%}"
            )
        if figures.agreement < self.min_agreement:
            yield f"the agreement is {figures.agreement:.1%}: expected at least {self.min_agreement:.1%}"
        frame_ms = figures.frame.quantile_ms(0.95)
        if self.max_frame_ms and frame_ms > self.max_frame_ms:
            yield f"95 % of the frames took up to {frame_ms:.1f} ms: expected at most {self.max_frame_ms:.1f} ms"
        cpu_ms = figures.cpu_ms_per_frame
        if self.max_cpu_ms and cpu_ms > self.max_cpu_ms:
            yield f"a frame took {cpu_ms:.1f} ms of CPU time: expected at most {self.max_cpu_ms:.1f} ms"
        if figures.failed > figures.frames * 0.01:
            yield f"{figures.failed} of {figures.frames} frames failed: expected at most 1 %"


def record_of(plan: BacktestPlan, figures: BacktestFigures, thresholds: Thresholds, at_ns: int) -> BacktestRecord:
    """Return the record of a backtest. ``at_ns`` is the present time in Unix ns."""
    return BacktestRecord(
        model=plan.candidate,
        sha256=plan.sha256,
        at=rfc3339(at_ns),
        since=rfc3339(plan.since_ms * 10**6),
        until=rfc3339(plan.until_ms * 10**6),
        pipelines=tuple(one.name for one in plan.pipelines),
        cameras=tuple(one.name for one in plan.cameras),
        served=figures.served,
        rules_sha256=plan.rules_digest,
        plan_sha256=plan.digest,
        thresholds=asdict(thresholds),
        figures=summary(figures),
        reasons=tuple(thresholds.reasons(figures)),
    )


def summary(figures: BacktestFigures) -> dict[str, Any]:
    """Return the figures of a backtest as values for JSON, without the events."""
    totals: Counter[str] = Counter()
    for one in figures.rules.values():
        totals += Counter({"equal": one.equal, "moved": one.moved, "gained": one.gained, "lost": one.lost})
    counts = ("frames", "classified", "failed", "compared", "agreeing", "shed_live", "lighter_live", "missing_live")
    return {
        **{name: getattr(figures, name) for name in counts},
        "events": {name: totals[name] for name in ("equal", "moved", "gained", "lost")},
        "lost_share": round(figures.lost_share, 4),
        "gained_share": round(figures.gained_share, 4),
        "agreement": round(figures.agreement, 4),
        "labels": {label: asdict(counts) for label, counts in sorted(figures.labels.items())},
        "stages_ms": {stage: _times(figures.stages[stage]) for stage in STAGES if stage in figures.stages},
        "frame_ms": _times(figures.frame),
        "cpu_ms_per_frame": round(figures.cpu_ms_per_frame, 3),
        "recorded_s": round(figures.recorded_s, 1),
        "cpu_s": round(figures.cpu_s, 2),
        "wall_s": round(figures.wall_s, 2),
        "speed": round(figures.speed, 1),
        "members": figures.members,
    }


def _times(durations: Durations) -> dict[str, float]:
    return {
        "mean": round(durations.mean_ms, 3),
        "p50": round(durations.quantile_ms(0.5), 3),
        "p95": round(durations.quantile_ms(0.95), 3),
    }
