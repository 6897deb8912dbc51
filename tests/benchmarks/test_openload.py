"""Tests of the open load and of the figures of its responses."""

from __future__ import annotations

import itertools

import pytest

from benchmarks.serving.goodput.openload import arrivals_s, load_figures


def test_the_same_seed_gives_the_same_increasing_arrival_times_of_requests() -> None:
    planned = arrivals_s(50.0, 20.0, seed=3)
    assert planned == arrivals_s(50.0, 20.0, seed=3)
    assert planned == sorted(planned)
    assert planned[0] > 0.0
    assert planned[-1] < 20.0


def test_pauses_between_arrivals_have_the_mean_and_the_spread_of_an_exponential_distribution() -> None:
    planned = arrivals_s(100.0, 200.0, seed=1)
    pauses = [after - before for before, after in itertools.pairwise(planned)]
    mean = sum(pauses) / len(pauses)
    spread = (sum((pause - mean) ** 2 for pause in pauses) / len(pauses)) ** 0.5
    assert mean == pytest.approx(0.01, rel=0.05)
    assert spread == pytest.approx(mean, rel=0.05)


def test_goodput_counts_only_responses_within_the_latency_bound() -> None:
    figures = load_figures([0.1, 0.2, 0.25, 0.3, None], seconds=2.0, bound_s=0.25)
    assert figures["offered_per_s"] == 2.5
    assert figures["goodput_per_s"] == 1.5
    assert figures["answered"] == 4


def test_latency_percentiles_count_a_missing_response_as_infinitely_late() -> None:
    mostly_good = load_figures([0.1] * 199 + [None], seconds=1.0, bound_s=0.25)
    assert (mostly_good["p50_ms"], mostly_good["p99_ms"]) == (100.0, 100.0)
    often_missing = load_figures([0.1] * 49 + [None], seconds=1.0, bound_s=0.25)
    assert (often_missing["p99_ms"], often_missing["p99_answered_ms"]) == (None, 100.0)


def test_a_load_without_requests_has_no_latency_percentiles() -> None:
    assert load_figures([], seconds=1.0, bound_s=0.25)["p99_ms"] is None
