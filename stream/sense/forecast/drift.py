"""Drift of a forecast model: whether its errors are larger than in the training. Pure."""

from __future__ import annotations

from collections.abc import Iterable

WINDOW = 288
"""Number of latest forecast errors that are summed: a day at steps of five minutes. As older errors do not count, a
worker needs no longer history."""
SLACK = 0.25
"""Increase of the mean absolute error, in scaled units of the series, that is not counted as drift."""


def drift_sum(scores: Iterable[float], mean: float) -> float:
    """Return the cumulative sum of the last ``WINDOW`` forecast errors, each less ``mean`` and ``SLACK``, and never
    below 0.

    The sum is the statistic of Page's one-sided test (1954). The sum stays near 0 while the errors are as in the
    training of the model, and grows while the errors are larger.
    """
    total = 0.0
    for score in list(scores)[-WINDOW:]:
        total = max(0.0, total + score - mean - SLACK)
    return total
