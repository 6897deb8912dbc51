"""Tests that the percentiles of the latency histogram are within the promised error."""

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
def test_latency_percentiles_are_within_the_promised_relative_error(values: list[float]) -> None:
    found, exact = counted(values).percentiles(), percentiles_ms(values)
    assert found.keys() == exact.keys() == {"p50", "p95", "p99"}
    for name, value in exact.items():
        assert abs(found[name] - value) <= value * RELATIVE_ERROR + 2 * ROUNDED


@pytest.mark.parametrize("value", [-5.0, 0.0, LEAST_MS])
def test_latencies_below_the_minimum_of_the_histogram_count_as_the_minimum(value: float) -> None:
    assert counted([value]).percentiles() == dict.fromkeys(("p50", "p95", "p99"), LEAST_MS)


def test_latency_percentiles_equal_those_of_numpy() -> None:
    values = np.random.default_rng(1).gamma(2.0, 40.0, 500).tolist()
    p50, p95, p99 = np.percentile(values, [50, 95, 99])
    assert percentiles_ms(values) == {"p50": round(p50, 1), "p95": round(p95, 1), "p99": round(p99, 1)}


def test_an_empty_latency_histogram_has_no_percentiles() -> None:
    assert percentiles_ms([]) == Latencies().percentiles() == {}
