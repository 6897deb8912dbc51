"""The inputs of a forecast model. Training and serving compute the inputs with the same function. Pure."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stream.sense.forecast.spec import WEEKDAYS, Array, Counts, SeriesSpec

LEVEL_STEPS = (3, 8, 24, 96, 288)
"""Numbers of latest time steps over which a feature averages the residuals: at steps of five minutes, 15 minutes to a
day. If a day has fewer steps than a number of this list, the mean is over one day."""
_PRIOR_STEPS = 3.0
"""Number of zero residuals that a mean residual counts in addition, so that few observed steps have little weight."""
_AROUND = 3
"""Number of steps before and after the same time yesterday that a feature averages, because a single step is mostly
noise."""


Inputs = npt.NDArray[np.float32]


class Layout(NamedTuple):
    """Columns of a forecast model's features by group, as slices, and the number of columns."""

    lags: slice
    """Residuals of the latest time steps, the latest first."""
    levels: slice
    """Mean residuals over the latest time steps, one for each number in ``LEVEL_STEPS``."""
    yesterday: slice
    """Mean residual around the same time yesterday, by forecast step."""
    profile: slice
    """Scaled profile at each forecast step, minus the mean of the profile."""
    clock: slice
    """Time of day as a share of the day, sine and cosine of the time of day, 1 on a weekend, and the share of
    observed steps among the lags."""
    width: int


def layout(spec: SeriesSpec) -> Layout:
    """Return the columns of the features of a series' forecast model."""
    sizes = (spec.lags, len(LEVEL_STEPS), spec.horizons, spec.horizons, 5)
    ends = np.cumsum(sizes).tolist()
    lags, levels, yesterday, profile, clock = (slice(end - size, end) for end, size in zip(ends, sizes, strict=True))
    return Layout(lags, levels, yesterday, profile, clock, ends[-1])


def history_steps(spec: SeriesSpec) -> int:
    """Return the number of time steps that the features of one forecast need."""
    return max(spec.lags, spec.slots + _AROUND)


def features(residuals: Array, expected: Array, slots: Counts, weekdays: Counts, spec: SeriesSpec) -> Inputs:
    """Return the features ``(T, width)`` float32 of a model that forecasts after each of T observed steps.

    Row t uses the residuals up to step t only; a residual is NaN if its step was not observed. ``residuals`` is
    ``(T,)`` in scaled units of the series. ``expected``, ``slots`` and ``weekdays`` are ``(T + horizons,)`` and cover
    the observed steps and the steps to forecast: profile in scaled units, step of the day, and weekday.
    """
    count, ahead = len(residuals), spec.horizons
    seen = ~np.isnan(residuals)
    known = np.where(seen, residuals, 0.0)
    back = history_steps(spec)
    padded, weights = np.concatenate((np.zeros(back), known)), np.concatenate((np.zeros(back), seen))
    sums, numbers = (np.concatenate(((0.0,), np.cumsum(one))) for one in (padded, weights))
    now = np.arange(back, back + count)

    def over(first: Counts, last: Counts) -> tuple[Array, Array]:
        """Return sum and number of the observed residuals from ``first`` to ``last``, both included."""
        return sums[last + 1] - sums[first], numbers[last + 1] - numbers[first]

    lags = np.stack([padded[now - lag] for lag in range(spec.lags)], axis=1)
    spans = [min(span, spec.slots) for span in LEVEL_STEPS]
    levels = [total / (number + _PRIOR_STEPS) for total, number in (over(now - span + 1, now) for span in spans)]
    yesterday = []
    for horizon in range(1, ahead + 1):
        middle = now + horizon - spec.slots
        total, number = over(np.minimum(middle - _AROUND, now), np.minimum(middle + _AROUND, now))
        yesterday.append(total / np.maximum(number, 1.0))
    profile = np.lib.stride_tricks.sliding_window_view(expected[1:], ahead)[:count] - _mean_profile(spec)
    share = slots[1 : count + 1] / spec.slots
    observed = over(now - spec.lags + 1, now)[1] / spec.lags
    angle = 2 * math.pi * share
    weekend = (weekdays[1 : count + 1] >= WEEKDAYS - 2).astype(float)
    clock = np.stack((share, np.sin(angle), np.cos(angle), weekend, observed), axis=1)
    parts = (lags, np.stack(levels, axis=1), np.stack(yesterday, axis=1), profile, clock)
    return np.concatenate(parts, axis=1).astype(np.float32)


def _mean_profile(spec: SeriesSpec) -> float:
    return float(np.mean(spec.profile))
