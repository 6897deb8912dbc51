"""Readings of simulated sensors, boxes of simulated vehicles, and the number of events that are due. Pure."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

RATE_HZ = 10
WINDOW_S = 10
LATENESS_S = 1
"""Time in s that a window waits for late readings, in Sightline and in Quix Streams."""
PERIOD = 2 * WINDOW_S * RATE_HZ
"""Number of readings in a window below the limit and a window above the limit."""
LIMIT = 60.0
HYSTERESIS = 2.0
START_S = 1_700_000_000 - 1_700_000_000 % (2 * WINDOW_S)
"""Time of the first reading, at the start of a window below the limit."""
FPS = 10
WIDTH, HEIGHT = 640, 360
LINE_X = 320
LANES, CYCLE = 4, 64
"""Number of lanes, and the number of frames after which the next vehicle enters a lane."""
_SPEED_PX, _BOX_PX, _EDGE_PX = 12.0, (60.0, 40.0), 1.0


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


def exceeded(count: int) -> int:
    """Return the number of times that ``count`` readings of a sensor begin to exceed the limit. The last time is more
    than a second before the end of the readings."""
    return (count + PERIOD // 2) // PERIOD


def boxes(count: int) -> list[list[tuple[float, float, float, float]]]:
    """Return the boxes of the vehicles in each of ``count`` frames. Each lane has one vehicle per ``CYCLE`` frames,
    which drives from left to right. The edges of the boxes are wrong by a pixel, as those of a detector."""
    rng = np.random.default_rng(1)
    width, height = _BOX_PX
    found: list[list[tuple[float, float, float, float]]] = []
    for frame in range(count):
        centres = [
            (_SPEED_PX * ((frame + lane * CYCLE // LANES) % CYCLE) - width, 60.0 + 80.0 * lane)
            for lane in range(LANES)
        ]
        seen = [(x, y) for x, y in centres if 0.0 < x < WIDTH]
        whole = [(x - width / 2, y - height / 2, x + width / 2, y + height / 2) for x, y in seen]
        noise = rng.normal(0.0, _EDGE_PX, (len(whole), 4))
        found.append([tuple(np.add(box, edges).tolist()) for box, edges in zip(whole, noise, strict=True)])
    return found


def crossings(count: int) -> int:
    """Return the number of vehicles that cross the line in the first ``count`` frames, if no vehicle is near the line
    at the end."""
    phase = (LINE_X + _BOX_PX[0]) / _SPEED_PX
    return sum(int((count - 1 + lane * CYCLE // LANES - phase) // CYCLE + 1) for lane in range(LANES)) - sum(
        lane * CYCLE // LANES > phase for lane in range(LANES)
    )


def columns(first: int, stop: int, rows: int) -> Iterator[tuple[int, int]]:
    """Return the bounds of columns with up to ``rows`` readings."""
    for start in range(first, stop, rows):
        yield start, min(start + rows, stop)
