"""Speed of a loaded model by batch size."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from engines.engine import Engine

_MIN_RUNS = 5
"""Minimum number of timed batches per batch size. With five batches, a single slow batch does not determine the
median."""


class BatchSpeed(NamedTuple):
    """Measured speed of batches of one size. Latencies are in ms for a whole batch."""

    batch: int
    images_per_s: float
    p50_ms: float
    p99_ms: float
    runs: int


def batch_speed(
    engine: Engine, batch: int, seconds: float, clock_s: Callable[[], float] = time.perf_counter
) -> BatchSpeed:
    """Time batches of noise one after another for ``seconds``, but at least five batches.

    An untimed batch runs first.

    Raise InferenceFailed.
    """
    return batch_speeds([engine], batch, seconds, clock_s)[0]


def batch_speeds(
    engines: Sequence[Engine], batch: int, seconds: float, clock_s: Callable[[], float] = time.perf_counter
) -> list[BatchSpeed]:
    """Measure the speed of several engines, whose batches run alternately, for ``seconds`` in all.

    Batches run alternately, so that other work on the machine slows all engines alike. Raise InferenceFailed.
    """
    durations_s: list[list[float]] = [[] for _ in engines]
    for engine in engines:
        noise = np.random.default_rng(0)
        for _ in range(engine.slot_count):  # the slots take turns
            with engine.slot() as slot:
                slot.pixels[:batch] = noise.integers(0, 256, slot.pixels[:batch].shape, np.uint8)
        _run(engine, batch)
    started_s = clock_s()
    while len(durations_s[0]) < _MIN_RUNS or clock_s() - started_s < seconds:
        for engine, taken_s in zip(engines, durations_s, strict=True):
            before_s = clock_s()
            _run(engine, batch)
            taken_s.append(clock_s() - before_s)
    return [_speed(batch, taken_s) for taken_s in durations_s]


def _speed(batch: int, durations_s: list[float]) -> BatchSpeed:
    p50_s, p99_s = (float(v) for v in np.percentile(durations_s, (50, 99)))
    rate = batch * len(durations_s) / sum(durations_s)
    return BatchSpeed(batch, round(rate, 1), round(p50_s * 1000, 3), round(p99_s * 1000, 3), len(durations_s))


def _run(engine: Engine, batch: int) -> None:
    with engine.slot() as slot:
        engine.run(slot, batch)
