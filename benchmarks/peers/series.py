"""Readings of simulated sensors, and the number of events that their rules must report. Pure."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

RATE_HZ = 10
WINDOW_S = 10
LATENESS_S = 1
"""Time in s that a window waits for late readings, in Sightline and in Quix Streams."""
LIMIT = 60.0
START_S = 1_700_000_000 - 1_700_000_000 % (2 * WINDOW_S)
"""Time of the first reading, at the start of a window below the limit."""


def times_ns(first: int, stop: int) -> list[int]:
    """Return the times of the readings ``first`` to ``stop``, in ns."""
    return [START_S * 1_000_000_000 + number * (1_000_000_000 // RATE_HZ) for number in range(first, stop)]


def values(sensor: int, count: int) -> list[float]:
    """Return the readings of a sensor: noise around 50 and around 70 by turns, so that the mean of every second
    window is above the limit."""
    windows = np.arange(count) // (WINDOW_S * RATE_HZ)
    noise = np.random.default_rng(sensor).normal(0.0, 1.0, count)
    readings: list[float] = (np.where(windows % 2 == 1, 70.0, 50.0) + noise).tolist()
    return readings


def closed_events(count: int) -> int:
    """Return the number of windows above the limit that ``count`` readings of a sensor close."""
    last_s = (count - 1) / RATE_HZ
    closed = int((last_s - LATENESS_S) // WINDOW_S)
    return max(0, closed // 2)


def columns(first: int, stop: int, rows: int) -> Iterator[tuple[int, int]]:
    """Return the bounds of columns with up to ``rows`` readings."""
    for start in range(first, stop, rows):
        yield start, min(start + rows, stop)
