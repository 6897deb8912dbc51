"""Prediction intervals by conformal prediction over the latest errors. Pure.

Split conformal prediction (Vovk et al., 2005; Lei et al., 2018) takes the half width of an interval from the sorted
absolute errors on data that the model has not seen. Here these are the errors of the latest steps, so that the
intervals follow a change of the series, and a restarted worker computes the same intervals from the log.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from stream.sense.forecast.spec import Array

WINDOW = 576
"""Number of steps whose errors make an interval: two days at steps of five minutes."""


def half_width(scores: Array, level: float) -> float | None:
    """Return the half width of an interval that covers the next value with the probability ``level``.

    ``scores`` are absolute errors. The probability holds if the next error is exchangeable with them. Return None if
    there are too few errors for the level.
    """
    rank = math.ceil((len(scores) + 1) * level)
    return float(np.partition(scores, rank - 1)[rank - 1]) if 0 < rank <= len(scores) else None


def window_scores(latest: Array, calibration: Sequence[float] | Array) -> Array:
    """Return the errors of the last ``WINDOW`` steps, the latest last.

    ``latest`` has one error per step, NaN for a step without one. Errors of the calibration, the latest last, take
    the places of the steps that are missing.
    """
    recent = latest[-WINDOW:]
    found = recent[~np.isnan(recent)]
    missing = WINDOW - len(found)
    return np.concatenate((np.asarray(calibration, np.float64)[-missing:] if missing else (), found))
