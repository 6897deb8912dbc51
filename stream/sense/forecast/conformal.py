"""Prediction intervals by conformal prediction over the latest errors. Pure.

Split conformal prediction (Vovk et al., 2005; Lei et al., 2018) takes the half width of an interval from the sorted
absolute errors on data that the model has not seen. This module takes the errors of the latest forecast steps, so
that the intervals follow a change of the series, and a restarted worker computes the same intervals from the log.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from stream.sense.forecast.spec import Array

WINDOW = 576
"""Number of time steps whose errors make a prediction interval: two days at steps of five minutes."""


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
