"""Percentiles of any number of latencies, as good as they say they are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.local.demo.latencies import LEAST_MS, RELATIVE_ERROR, Latencies, percentiles_ms

ROUNDED = 0.05001


def counted(values: list[float]) -> Latencies:
    latencies = Latencies()
    for value in values:
        latencies.add(value)
    return latencies


@given(st.lists(st.floats(LEAST_MS, 1e8), min_size=1, max_size=200))
def test_percentiles_are_within_the_error_that_is_told(values: list[float]) -> None:
    found, exact = counted(values).percentiles(), percentiles_ms(values)
    assert found.keys() == exact.keys() == {"p50", "p95", "p99"}
    for name, value in exact.items():
        assert abs(found[name] - value) <= value * RELATIVE_ERROR + 2 * ROUNDED


@pytest.mark.parametrize("value", [-5.0, 0.0, LEAST_MS])
def test_what_is_shorter_than_can_be_told_counts_as_the_least(value: float) -> None:
    assert counted([value]).percentiles() == dict.fromkeys(("p50", "p95", "p99"), LEAST_MS)


def test_percentiles_are_numpys() -> None:
    values = np.random.default_rng(1).gamma(2.0, 40.0, 500).tolist()
    p50, p95, p99 = np.percentile(values, [50, 95, 99])
    assert percentiles_ms(values) == {"p50": round(p50, 1), "p95": round(p95, 1), "p99": round(p99, 1)}


def test_nothing_has_no_percentiles() -> None:
    assert percentiles_ms([]) == Latencies().percentiles() == {}


def test_what_is_forgotten_does_not_count() -> None:
    latencies = counted([5.0, 6.0])
    latencies.clear()
    assert (latencies.percentiles(), list(latencies.recent)) == ({}, [])
