"""The state of one forecast: the steps of its series, its latest forecasts, and their errors. Pure.

The state depends only on the records of the last ``history_s``, so that a restarted worker makes the same forecasts.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ingest.contract.records import Forecast, ForecastPoint, ForecastSkill, Measure
from ingest.site import ForecastConfig
from stream.events import event_id
from stream.sense.forecast import conformal, drift
from stream.sense.forecast.model import ForecastModel
from stream.sense.forecast.spec import Array
from stream.sense.forecast.steps import MinuteValue, Steps

SKILL_STEPS = 288
"""Number of steps over which skill and coverage are computed: a day at steps of five minutes."""
SHOWN = (1, 3, 6, 12, 24, 48)
"""Horizons whose skill a record shows."""
_DIGITS = 3


class _Made(NamedTuple):
    """A forecast that was made: scaled values and half widths by horizon."""

    scaled: Array
    widths: Array


class _Scored(NamedTuple):
    """The errors of the forecasts for one step, by horizon, NaN without a forecast."""

    scores: Array
    errors: Array
    naive: Array
    covered: Array


class Forecaster:
    """Makes a forecast after each step of a series."""

    def __init__(self, config: ForecastConfig, model: ForecastModel) -> None:
        self.config, self.model = config, model
        self._spec = model.spec
        self._zone = config.time_zone or "UTC"
        self._steps = Steps(self._spec.step_s, self._spec.aggregate)
        self._last: int | None = None
        """The last step that is complete."""
        self._made: dict[int, _Made] = {}
        self._scored: dict[int, _Scored] = {}

    @staticmethod
    def history_s(model: ForecastModel) -> float:
        """Return the length in seconds of the history on which the state depends."""
        errors = max(conformal.WINDOW, drift.WINDOW, SKILL_STEPS)
        return float((errors + 2 * model.history + model.spec.horizons + 2) * model.spec.step_s)

    def add(self, measure: Measure) -> Forecast | None:
        """Add a minute of the measure. Return the forecast after the last step, if this minute completes a step.

        A minute of a step that is complete corrects the step, and makes no forecast.
        """
        self._steps.add(MinuteValue.of(measure, self.config.value, self._spec.aggregate))
        minutes_per_step = self._spec.step_s // 60
        last = (measure.start_ns // (60 * 10**9) + 1) // minutes_per_step - 1
        if self._last is not None and measure.revision == 0 and last < self._last - self.model.history:
            self._last = None  # the camera's clock was far ahead, and was set back
            self._made.clear()
            self._scored.clear()
        if self._last is None:
            self._last = last
            return None  # the first step may be a part of one
        if last <= self._last:
            return None
        first = max(self._last + 1, last - self.model.history)
        for step in range(first, last + 1):
            self._score(step)
        self._last = last
        self._forget(last)
        return self._forecast(last, measure)

    def _forecast(self, last: int, measure: Measure) -> Forecast:
        spec = self._spec
        values = self._steps.values(last - self.model.history + 1, last)
        seen = int(np.count_nonzero(~np.isnan(values[-spec.lags :])))
        reason = ""
        points: tuple[ForecastPoint, ...] = ()
        if seen < self.config.min_observed * spec.lags or not seen:
            reason = f"{seen} of the last {spec.lags} steps were observed: expected {self.config.min_observed:.0%}"
        else:
            scaled = self.model.forecast(values, last, self._zone)
            made = self._made[last] = _Made(scaled, self._widths(last))
            points = self._points(last, made)
        summed = self._drift(last)
        made_ns = (last + 1) * spec.step_s * 10**9
        return Forecast(
            id=event_id("forecast", self.config.name, self.model.id, made_ns),
            name=self.config.name,
            measure=self.config.measure,
            value=self.config.value,
            site=measure.site,
            camera=measure.camera,
            model=self.model.id,
            made_ns=made_ns,
            step_s=spec.step_s,
            level=self.config.level,
            observed=round(seen / spec.lags, 4),
            reason=reason,
            points=points,
            skill=tuple(self._skill(last)),
            drift=round(summed, _DIGITS),
            drift_limit=spec.drift_limit,
        )

    def _widths(self, last: int) -> Array:
        latest = self._column("scores", last, conformal.WINDOW)
        return np.array(
            [
                np.nan if (found := self._half_width(latest[:, h], h)) is None else found
                for h in range(self._spec.horizons)
            ]
        )

    def _half_width(self, latest: Array, column: int) -> float | None:
        calibration = self._spec.scores[column] if self._spec.scores else ()
        return conformal.half_width(conformal.window_scores(latest, calibration), self.config.level)

    def _points(self, last: int, made: _Made) -> tuple[ForecastPoint, ...]:
        def shown(scaled: Array) -> list[float | None]:
            values = self._spec.unscaled(scaled)
            return [None if np.isnan(value) else round(float(value), _DIGITS) for value in values]

        bounds = zip(
            shown(made.scaled), shown(made.scaled - made.widths), shown(made.scaled + made.widths), strict=True
        )
        return tuple(
            ForecastPoint(
                horizon=horizon,
                start_ns=(last + horizon) * self._spec.step_s * 10**9,
                value=value or 0.0,
                lower=lower,
                upper=upper,
            )
            for horizon, (value, lower, upper) in enumerate(bounds, 1)
        )

    def _score(self, step: int) -> None:
        """Compare a complete step with the forecasts that were made for it."""
        value = self._steps.value(step)
        if np.isnan(value):
            return
        spec, count = self._spec, self._spec.horizons
        scaled = float(spec.scaled(np.array([value]))[0])
        before = self._steps.value(step - spec.slots)
        usual = float(self.model.expected(step, 1, self._zone)[0])
        naive = before if not np.isnan(before) else float(spec.unscaled(np.array([usual]))[0])
        found = _Scored(*(np.full(count, np.nan) for _ in range(4)))
        for horizon in range(1, count + 1):
            made = self._made.get(step - horizon)
            if made is None:
                continue
            at = horizon - 1
            score = abs(made.scaled[at] - scaled)
            found.scores[at] = score
            found.errors[at] = abs(float(spec.unscaled(made.scaled[at : at + 1])[0]) - value)
            found.naive[at] = abs(naive - value)
            found.covered[at] = np.nan if np.isnan(made.widths[at]) else float(score <= made.widths[at])
        self._scored[step] = found

    def _skill(self, last: int) -> list[ForecastSkill]:
        errors, naive, covered = (self._column(name, last, SKILL_STEPS) for name in ("errors", "naive", "covered"))
        found = []
        for horizon in (h for h in SHOWN if h <= self._spec.horizons):
            at = horizon - 1
            steps = int(np.count_nonzero(~np.isnan(errors[:, at])))
            if steps:
                within = covered[~np.isnan(covered[:, at]), at]
                found.append(
                    ForecastSkill(
                        horizon=horizon,
                        steps=steps,
                        mae=round(float(np.nanmean(errors[:, at])), _DIGITS),
                        naive_mae=round(float(np.nanmean(naive[:, at])), _DIGITS),
                        covered=round(float(within.mean()), 4) if len(within) else 0.0,
                    )
                )
        return found

    def _drift(self, last: int) -> float:
        scores = self._column("scores", last, drift.WINDOW)[:, 0]
        mean = float(np.mean(self._spec.scores[0])) if self._spec.scores and self._spec.scores[0] else 0.0
        return drift.drift_sum(scores[~np.isnan(scores)], mean) if mean else 0.0

    def _column(self, name: str, last: int, count: int) -> Array:
        """Return one kind of errors of the last ``count`` steps, ``(count, horizons)``, NaN where there is none."""
        blank = np.full(self._spec.horizons, np.nan)
        steps = range(last - count + 1, last + 1)
        return np.stack([getattr(self._scored[step], name) if step in self._scored else blank for step in steps])

    def _forget(self, last: int) -> None:
        """Drop the state on which no later forecast depends."""
        self._steps.drop_before(last - self.model.history - self._spec.horizons)
        kept = max(conformal.WINDOW, drift.WINDOW, SKILL_STEPS)
        _drop(self._scored, last - kept)
        _drop(self._made, last - self._spec.horizons)


def _drop(found: dict[int, _Made] | dict[int, _Scored], before: int) -> None:
    for step in [one for one in found if one < before]:
        del found[step]
