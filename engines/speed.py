"""Speed of a loaded model by batch size."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from engines.engine import Engine

_MIN_RUNS = 5
"""Minimum number of timed batches of a size, for a median that one slow batch does not decide."""


class BatchSpeed(NamedTuple):
    """Speed of one batch size. Latencies are in milliseconds for a whole batch."""

    batch: int
    images_per_s: float
    p50_ms: float
    p99_ms: float
    runs: int


def batch_speed(
    engine: Engine, batch: int, seconds: float, clock_s: Callable[[], float] = time.perf_counter
) -> BatchSpeed:
    """Run batches of noise one after another for ``seconds``, but at least five. An untimed batch comes first.

    Raise InferenceFailed.
    """
    durations_s: list[float] = []
    noise = np.random.default_rng(0)
    for _ in range(engine.slot_count):  # the slots take turns
        with engine.slot() as slot:
            slot.pixels[:batch] = noise.integers(0, 256, slot.pixels[:batch].shape, np.uint8)
    _run(engine, batch)
    started_s = clock_s()
    while len(durations_s) < _MIN_RUNS or clock_s() - started_s < seconds:
        before_s = clock_s()
        _run(engine, batch)
        durations_s.append(clock_s() - before_s)
    p50_s, p99_s = (float(v) for v in np.percentile(durations_s, (50, 99)))
    rate = batch * len(durations_s) / sum(durations_s)
    return BatchSpeed(batch, round(rate, 1), round(p50_s * 1000, 3), round(p99_s * 1000, 3), len(durations_s))


def _run(engine: Engine, batch: int) -> None:
    with engine.slot() as slot:
        engine.run(slot, batch)
