"""The training set of a forecast model: profile, features and targets of a series up to a time. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stream.sense.forecast.features import features
from stream.sense.forecast.spec import WEEKDAYS, Array, Counts, Scale, SeriesSpec, local_steps

SMOOTHINGS = (0.0, 1.0, 2.0, 3.0, 4.0)
"""Standard deviations in time steps of the Gaussians that are tried to smooth a daily profile. The standard deviation
with the least error on left-out days is taken."""
_MIN_DAYS = 2
"""Minimum number of work days, and of weekend days, for separate profiles of the two."""


@dataclass(frozen=True, slots=True)
class Series:
    """The values of a series at equal time steps: NaN stands for a step that was not observed.

    ``first`` is the number of the first time step since the Unix epoch.
    """

    name: str
    step_s: int
    first: int
    values: Array
    time_zone: str = "UTC"

    def days(self) -> npt.NDArray[np.int64]:
        """Return the number of the local day of each time step; the series' first day is 0."""
        _, weekdays = self.clock()
        changes = np.concatenate(((0,), np.cumsum(np.diff(weekdays) != 0)))
        return np.asarray(changes, np.int64)

    def clock(self, ahead: int = 0) -> tuple[Counts, Counts]:
        """Return step of the day and weekday of each time step, and of ``ahead`` further steps."""
        return local_steps(self.first, len(self.values) + ahead, self.step_s, self.time_zone)


class Examples(NamedTuple):
    """Training examples: features ``(N, width)``, scaled residuals to forecast ``(N, horizons)``, NaN where unknown,
    and the scaled profile ``(N, horizons)`` at the forecast steps. Row t is the example of the forecast after step t
    of the series."""

    features: npt.NDArray[np.float32]
    residuals: Array
    expected: Array


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """The training set of a model that may know the steps before ``stop``, and the examples of the whole series."""

    spec: SeriesSpec
    examples: Examples
    stop: int

    def training_rows(self) -> npt.NDArray[np.int64]:
        """Return the rows of the examples whose targets all lie before ``stop`` and are not all unknown."""
        rows = np.arange(max(self.stop - self.spec.horizons, 0))
        return rows[~np.isnan(self.examples.residuals[rows]).all(axis=1)]


def training_set(series: Series, stop: int, scale: Scale, lags: int, horizons: int) -> TrainingSet:
    """Return the description and examples of a series for a model that may know the steps before ``stop``.

    The profile comes from the days before ``stop``. The residual of such a day is taken from the profile of the other
    days, so that it is as large as on a day in the future.
    """
    slots, weekdays = series.clock(horizons)
    days = series.days()
    unit = float(np.nanstd(series.values[:stop])) or 1.0
    blank = tuple((0.0,) * (86_400 // series.step_s) for _ in range(WEEKDAYS))
    base = SeriesSpec(
        step_s=series.step_s,
        lags=lags,
        horizons=horizons,
        scale=scale,
        unit=unit if scale == "linear" else 1.0,
        profile=blank,
    )
    scaled = base.scaled(series.values)
    profiles = DayProfiles(scaled[:stop], slots[:stop], weekdays[:stop], days[:stop], base.slots)
    spec = base.model_copy(update={"profile": tuple(map(tuple, profiles.final().tolist()))})
    expected = spec.expected(slots, weekdays)
    expected[:stop] = profiles.without_own_day()
    residuals = scaled - expected[: len(scaled)]
    inputs = features(residuals, expected, slots, weekdays, spec)
    ahead = np.concatenate((residuals, np.full(horizons, np.nan)))
    windows = np.lib.stride_tricks.sliding_window_view
    return TrainingSet(
        spec, Examples(inputs, windows(ahead[1:], horizons).copy(), windows(expected[1:], horizons).copy()), stop
    )


class DayProfiles:
    """The mean of the scaled values by step of the day, for work days and weekends, smoothed over time.

    If there are fewer than two work days or two weekend days, all days share one profile.
    """

    def __init__(self, scaled: Array, slots: Counts, weekdays: Counts, days: Counts, size: int) -> None:
        self._slots, self._days = slots, days
        count = int(days[-1]) + 1 if len(days) else 0
        self._table = np.full((count, size), np.nan)
        self._table[days, slots] = scaled
        kinds = np.zeros(count, np.int64)
        kinds[days] = weekdays >= WEEKDAYS - 2
        self._observed = ~np.isnan(self._table).all(axis=1)
        enough = [np.count_nonzero(self._observed & (kinds == kind)) >= _MIN_DAYS for kind in (0, 1)]
        self._groups = kinds if all(enough) else np.zeros(count, np.int64)
        errors = [self._error(sigma) for sigma in SMOOTHINGS]
        self.smoothing = SMOOTHINGS[int(np.argmin(errors))]

    def final(self) -> Array:
        """Return the profiles ``(7, steps of a day)`` from all days."""
        work = self._profile(self._groups == 0, self.smoothing)
        rest = self._profile(self._groups == 1, self.smoothing) if self._groups.any() else work
        return np.stack([work] * (WEEKDAYS - 2) + [rest] * 2)

    def without_own_day(self) -> Array:
        """Return for each time step the profile of the other work days, or of the other weekend days."""
        return self._left_out(self.smoothing)[self._days, self._slots]

    def _error(self, sigma: float) -> float:
        return float(np.nanmean((self._table - self._left_out(sigma)) ** 2)) if len(self._table) else 0.0

    def _left_out(self, sigma: float) -> Array:
        days = np.arange(len(self._table))
        return np.stack([self._profile((self._groups == self._groups[d]) & (days != d), sigma) for d in days])

    def _profile(self, chosen: npt.NDArray[np.bool_], sigma: float) -> Array:
        rows = self._table[chosen & self._observed]
        if not len(rows):
            rows = self._table[self._observed]
        numbers = np.count_nonzero(~np.isnan(rows), axis=0).astype(float)
        return _smoothed(np.nansum(rows, axis=0), sigma) / np.maximum(_smoothed(numbers, sigma), 1e-9)


def _smoothed(values: Array, sigma: float) -> Array:
    """Return the values of a day smoothed by a Gaussian of ``sigma`` steps; the end of the day is next to its
    begin."""
    if not sigma:
        return values
    reach = min(round(4 * sigma), len(values) - 1)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    return np.convolve(np.concatenate((values[-reach:], values, values[:reach])), kernel / kernel.sum(), "valid")


def naive(series: Series, given: TrainingSet) -> Array:
    """Return the seasonal naive forecast ``(T, horizons)`` in scaled units: the latest known value at the same time
    of day, or the profile if the step of that value was not observed."""
    spec, scaled = given.spec, given.spec.scaled(series.values)
    values = np.full((len(scaled), spec.horizons), np.nan)
    for horizon in range(1, spec.horizons + 1):
        back = spec.seasonal_lag(horizon) - horizon
        values[back:, horizon - 1] = scaled[: max(len(scaled) - back, 0)]
    return np.where(np.isnan(values), given.examples.expected, values)
