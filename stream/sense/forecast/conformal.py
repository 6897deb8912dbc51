"""Prediction intervals by conformal prediction over the latest errors. Pure.

Split conformal prediction (Vovk et al., 2005; Lei et al., 2018) takes the half width of an interval from the sorted
absolute errors on data that the model has not seen. This module takes the errors of the latest forecast steps, so
that the intervals follow a change of the series, and a restarted worker computes the same intervals from the log.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from stream.sense.forecast.spec import Array

WINDOW = 576
"""Number of time steps whose errors make a prediction interval: two days at steps of five minutes."""
CORRECTION = 288
"""Number of time steps whose interval coverage corrects the probability of an interval: a day at steps of five
minutes."""
_LEVELS = (0.5, 0.99)
"""Lowest and highest corrected probability of a prediction interval."""


def half_width(scores: Array, level: float) -> float | None:
    """Return the half width of a prediction interval that covers the next value with the probability ``level``.

    ``scores`` are absolute errors of earlier forecasts. The probability holds if the next error is exchangeable with
    ``scores``. Return None if ``scores`` are too few for the level.
    """
    rank = math.ceil((len(scores) + 1) * level)
    return float(np.partition(scores, rank - 1)[rank - 1]) if 0 < rank <= len(scores) else None


def window_scores(latest: Array, calibration: Sequence[float] | Array) -> Array:
    """Return the forecast errors of the last ``WINDOW`` time steps, the latest last.

    ``latest`` has one error per time step: NaN for a step that was not observed or not forecast. The latest errors of
    the calibration take the places of the NaN steps.
    """
    recent = latest[-WINDOW:]
    found = recent[~np.isnan(recent)]
    missing = WINDOW - len(found)
    return np.concatenate((np.asarray(calibration, np.float64)[-missing:] if missing else (), found))


class HalfWidths(NamedTuple):
    """Half width of a prediction interval at the corrected probability, and at the configured probability."""

    corrected: float
    uncorrected: float


def corrected_widths(scores: Array, level: float, covered: Array) -> HalfWidths | None:
    """Return the half widths of a prediction interval at the corrected probability and at the probability ``level``;
    None if there are too few errors.

    If the corrected probability needs more errors than there are, the half width is the largest error.
    """
    uncorrected = half_width(scores, level)
    if uncorrected is None:
        return None
    corrected = half_width(scores, corrected_level(level, covered))
    return HalfWidths(float(np.max(scores)) if corrected is None else corrected, uncorrected)


def corrected_level(level: float, covered: Array) -> float:
    """Return the probability for which the next prediction interval is computed, so that the intervals cover the
    share ``level`` of all values in the long run.

    ``covered`` has an element for each of the latest time steps: 1 if an interval computed for ``level`` covered the
    value, 0 if not, NaN if unknown. If these intervals have covered 2 % too many values, the next interval is
    computed for a probability that is 2 % lower. Unlike in adaptive conformal inference, the correction does not
    depend on earlier corrections, so a bounded part of the log determines the next interval.
    """
    recent = covered[-CORRECTION:]
    known = recent[~np.isnan(recent)]
    return float(np.clip(level + float(np.sum(level - known)) / CORRECTION, *_LEVELS))
