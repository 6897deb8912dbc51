"""The state of one forecast: the steps of its series, its latest forecasts, and their errors. Pure.

The state depends only on the records of the last ``history_s`` seconds, so that a restarted worker makes the same
forecasts.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ingest.contract.records import Forecast, ForecastPoint, ForecastSkill
from ingest.site import ForecastConfig
from stream.events import event_id
from stream.sense.forecast import conformal, drift
from stream.sense.forecast.model import ForecastModel
from stream.sense.forecast.spec import Array
from stream.sense.forecast.steps import MinuteValue, Steps, aggregate_of

SKILL_STEPS = 288
"""Number of time steps over which skill and interval coverage are computed: a day at steps of five minutes."""
SHOWN = (1, 3, 6, 12, 24, 48)
"""Numbers of steps ahead for which a forecast record shows the skill."""
_DIGITS = 3


_SCORE, _ERROR, _NAIVE, _COVERED, _UNCORRECTED = range(5)
"""Kinds of the forecast errors that are kept of each time step: the absolute error in scaled units, the absolute
errors of the forecast and of the seasonal naive forecast, and 1 if the interval covered the value, else 0. The last
kind is 1 if the interval without the corrected probability covered the value, else 0."""


class MadeForecast(NamedTuple):
    """An earlier forecast: values, half widths of the intervals, and half widths at the configured probability, all
    in scaled units, by number of steps ahead."""

    scaled: Array
    widths: Array
    uncorrected: Array


class Forecaster:
    """Makes a forecast after each time step of a series."""

    def __init__(self, config: ForecastConfig, model: ForecastModel) -> None:
        self.config, self.model = config, model
        self._spec = model.spec
        self._zone = config.time_zone or "UTC"
        self._steps = self._no_steps()
        self._last: int | None = None
        """Number of the last complete time step, from the Unix epoch."""
        self._made: dict[int, MadeForecast] = {}
        self._errors = np.empty(0)
        self._begin()

    def _no_steps(self) -> Steps:
        return Steps(self._spec.step_s, aggregate_of(self.config.value))

    def _begin(self) -> None:
        """Forget all forecasts and errors."""
        kept = max(conformal.WINDOW, conformal.CORRECTION, drift.WINDOW, SKILL_STEPS)
        self._made.clear()
        self._errors = np.full((kept, 5, self._spec.horizons), np.nan)
        """The forecast errors of the latest time steps by kind and number of steps ahead, the latest step last."""

    @staticmethod
    def history_s(model: ForecastModel) -> float:
        """Return the length in seconds of the measured history on which the forecaster's state depends."""
        errors = max(conformal.WINDOW + conformal.CORRECTION, drift.WINDOW, SKILL_STEPS)
        return float((errors + 2 * model.history + model.spec.horizons + 2) * model.spec.step_s)

    def add(self, minute: MinuteValue, site: str, camera: str) -> Forecast | None:
        """Add a minute of the measure to its time step. If the minute completes a step, return the forecast after
        that step, else None.

        A minute of a complete step corrects the step, and makes no forecast.
        """
        last = (minute.minute + 1) // (self._spec.step_s // 60) - 1
        is_first = minute.revision == 0 and not minute.late
        if self._last is not None and is_first and last < self._last - self.model.history:
            self._last = None  # the camera's clock was far ahead, and was set back
            self._steps = self._no_steps()
            self._begin()
        self._steps.add(minute)
        if self._last is None:
            self._last = last
            return None  # the first step may be a part of one
        if last <= self._last:
            return None
        if last - self._last > len(self._errors):
            self._begin()
        for step in range(max(self._last + 1, last - len(self._errors)), last + 1):
            self._score(step)
        self._last = last
        self._steps.drop_before(last - self.model.history - self._spec.horizons)
        for made in [one for one in self._made if one < last - self._spec.horizons]:
            del self._made[made]
        return self._forecast(last, site, camera)

    def _forecast(self, last: int, site: str, camera: str) -> Forecast:
        spec = self._spec
        values = self._steps.values(last - self.model.history + 1, last)
        seen = int(np.count_nonzero(~np.isnan(values[-spec.lags :])))
        reason = ""
        points: tuple[ForecastPoint, ...] = ()
        if seen < self.config.min_observed * spec.lags or not seen:
            reason = f"{seen} of the last {spec.lags} steps were observed: expected {self.config.min_observed:.0%}"
        else:
            scaled = self.model.forecast(values, last, self._zone)
            made = self._made[last] = MadeForecast(scaled, *self._widths())
            points = self._points(last, made)
        summed = self._drift()
        made_ns = (last + 1) * spec.step_s * 10**9
        return Forecast(
            id=event_id("forecast", self.config.name, self.model.id, made_ns),
            name=self.config.name,
            measure=self.config.measure,
            value=self.config.value,
            site=site,
            camera=camera,
            model=self.model.id,
            made_ns=made_ns,
            step_s=spec.step_s,
            level=self.config.level,
            observed=round(seen / spec.lags, 4),
            reason=reason,
            points=points,
            skill=tuple(self._skill()),
            drift=round(summed, _DIGITS),
            drift_limit=spec.drift_limit,
        )

    def _widths(self) -> tuple[Array, Array]:
        """Return the half widths of the intervals by number of steps ahead, at the corrected and at the configured
        probability; NaN for too few errors."""
        level, widths = self.config.level, np.full((2, self._spec.horizons), np.nan)
        for column in range(self._spec.horizons):
            calibration = self._spec.scores[column] if self._spec.scores else ()
            latest = conformal.window_scores(self._errors[:, _SCORE, column], calibration)
            covered = self._errors[:, _UNCORRECTED, column]
            if found := conformal.corrected_widths(latest, level, covered):
                widths[:, column] = found
        return widths[0], widths[1]

    def _points(self, last: int, made: MadeForecast) -> tuple[ForecastPoint, ...]:
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
        """Compare the value of a complete time step with the forecasts that were made for the step."""
        self._errors[:-1] = self._errors[1:]
        self._errors[-1] = np.nan
        value = self._steps.value(step)
        if np.isnan(value):
            return
        spec = self._spec
        scaled = float(spec.scaled(np.array([value]))[0])
        naive: dict[int, float] = {}
        for at in range(spec.horizons):
            made = self._made.get(step - at - 1)
            if made is None:
                continue
            score = abs(made.scaled[at] - scaled)
            error = abs(float(spec.unscaled(made.scaled[at : at + 1])[0]) - value)
            widths = np.array((made.widths[at], made.uncorrected[at]))
            covered = np.where(np.isnan(widths), np.nan, score <= widths)
            lag = spec.seasonal_lag(at + 1)
            if lag not in naive:
                naive[lag] = self._naive(step, lag)
            self._errors[-1, :, at] = score, error, abs(naive[lag] - value), *covered

    def _naive(self, step: int, lag: int) -> float:
        """Return the seasonal naive forecast of a time step: the value ``lag`` steps earlier, or the profile if that
        step was not observed."""
        value = self._steps.value(step - lag)
        if np.isnan(value):
            return float(self._spec.unscaled(self.model.expected(step, 1, self._zone))[0])
        return value

    def _skill(self) -> list[ForecastSkill]:
        found = []
        for horizon in (h for h in SHOWN if h <= self._spec.horizons):
            errors = self._errors[-SKILL_STEPS:, :, horizon - 1]
            errors = errors[~np.isnan(errors[:, _ERROR])]
            if len(errors):
                covered = errors[~np.isnan(errors[:, _COVERED]), _COVERED]
                found.append(
                    ForecastSkill(
                        horizon=horizon,
                        steps=len(errors),
                        mae=round(float(errors[:, _ERROR].mean()), _DIGITS),
                        naive_mae=round(float(errors[:, _NAIVE].mean()), _DIGITS),
                        covered=round(float(covered.mean()), 4) if len(covered) else 0.0,
                    )
                )
        return found

    def _drift(self) -> float:
        scores = self._errors[-drift.WINDOW :, _SCORE, 0]
        mean = float(np.mean(self._spec.scores[0])) if self._spec.scores and self._spec.scores[0] else 0.0
        return drift.drift_sum(scores[~np.isnan(scores)].tolist(), mean) if mean else 0.0
