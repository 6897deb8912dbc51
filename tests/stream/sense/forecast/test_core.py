"""Tests of the pure parts of forecasts: scales, local time, features, intervals, drift and steps."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.site import ForecastConfig
from stream.sense.forecast import conformal
from stream.sense.forecast.conformal import CORRECTION, corrected_level, corrected_widths, half_width, window_scores
from stream.sense.forecast.drift import drift_sum
from stream.sense.forecast.features import features, history_steps, layout
from stream.sense.forecast.forecaster import Forecaster
from stream.sense.forecast.spec import SeriesSpec, local_steps
from stream.sense.forecast.steps import MinuteValue, Steps, aggregate_of
from tests.stream.sense.forecast.series import MONDAY_NS, STEP_S, model, spec

FIRST = MONDAY_NS // (STEP_S * 10**9)
LEVELS = st.sampled_from((0.5, 0.8, 0.9, 0.95))


@settings(max_examples=30)
@given(st.lists(st.floats(0.0, 1e6), min_size=1, max_size=20), st.sampled_from(("count", "linear")))
def test_unscaling_returns_the_values_that_were_scaled(values: list[float], scale: str) -> None:
    one = spec(scale=scale, unit=7.0)
    assert one.unscaled(one.scaled(np.array(values))) == pytest.approx(values, rel=1e-6, abs=1e-6)


def test_time_slots_of_a_day_follow_local_time_when_clocks_change() -> None:
    midnight_utc = 1_459_036_800 // 300  # Sunday, 27 March 2016: clocks in Berlin go from 2:00 to 3:00
    slots, weekdays = local_steps(midnight_utc, 24, 300, "Europe/Berlin")
    assert slots[:12].tolist() == list(range(12, 24))
    assert slots[12] == 36
    assert set(weekdays) == {6}


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_forecast_features_of_a_step_use_no_later_values_and_none_before_the_history(
    data: st.DataObject,
) -> None:
    one = spec()
    count = history_steps(one) + 30
    chance = random.Random(data.draw(st.integers(0, 10**6)))
    residuals = np.array([chance.gauss(0, 1) if chance.random() > 0.1 else np.nan for _ in range(count)])
    slots, weekdays = local_steps(FIRST, count + one.horizons, STEP_S, "UTC")
    expected = one.expected(slots, weekdays)
    at = data.draw(st.integers(history_steps(one), count - 1))
    whole = features(residuals, expected, slots, weekdays, one)[at]
    changed = residuals.copy()
    changed[at + 1 :] = 99.0
    changed[: at + 1 - history_steps(one)] = -99.0
    assert features(changed, expected, slots, weekdays, one)[at] == pytest.approx(whole, abs=1e-5)
    assert len(whole) == layout(one).width


def test_served_forecasts_equal_forecasts_computed_over_the_whole_series(tmp_path: Path) -> None:
    import onnx

    from training.forecast.evaluate import run_graph

    one = spec()
    served = model(tmp_path)
    values = np.random.default_rng(1).poisson(40.0, 130).astype(float)
    values[60:63] = np.nan
    slots, weekdays = local_steps(FIRST, len(values) + one.horizons, STEP_S, "UTC")
    expected = one.expected(slots, weekdays)
    residuals = one.scaled(values) - expected[: len(values)]
    inputs = features(residuals, expected, slots, weekdays, one)
    found = run_graph(onnx.load(tmp_path / "flow@1.onnx"), inputs)[-1]
    forecast = served.forecast(values[-served.history :], FIRST + len(values) - 1, "UTC")
    assert forecast == pytest.approx(found + expected[len(values) :], abs=1e-4)


@given(st.integers(0, 10**6), LEVELS)
@settings(max_examples=30, deadline=None)
def test_prediction_intervals_cover_exchangeable_values_at_least_as_often_as_asked(seed: int, level: float) -> None:
    """By the theorem of conformal prediction, over all positions of the new error among the others."""
    errors = np.random.default_rng(seed).exponential(size=80)
    covered = 0
    for new in range(len(errors)):
        width = half_width(np.delete(errors, new), level)
        covered += width is None or errors[new] <= width
    assert covered / len(errors) >= level


@settings(max_examples=20)
@given(st.lists(st.floats(0, 100), min_size=20, max_size=60))
def test_prediction_intervals_of_a_higher_probability_are_not_narrower(scores: list[float]) -> None:
    widths = [half_width(np.array(scores), level) for level in (0.5, 0.7, 0.9)]
    assert widths == sorted(widths)  # type: ignore[type-var]


def test_too_few_forecast_errors_give_no_prediction_interval() -> None:
    assert half_width(np.ones(8), 0.9) is None
    assert half_width(np.ones(9), 0.9) == 1.0
    assert corrected_widths(np.ones(8), 0.9, np.zeros(9)) is None
    assert corrected_widths(np.arange(9.0), 0.8, np.zeros(288)) == (8.0, 7.0)


@settings(max_examples=30)
@given(st.lists(st.one_of(st.none(), st.floats(0, 9)), max_size=20), st.lists(st.floats(10, 19), max_size=20))
def test_missing_forecast_errors_are_replaced_by_errors_of_the_calibration(
    latest: list[float | None], before: list[float]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conformal, "WINDOW", 8)
        values = np.array([np.nan if one is None else one for one in latest], float)
        found = window_scores(values, before)
    known = [one for one in latest[-8:] if one is not None]
    missing = 8 - len(known)
    assert found.tolist() == (before[-missing:] if missing else []) + known


def test_the_probability_of_an_interval_is_corrected_by_the_coverage_of_the_last_day() -> None:
    exact = np.array(([1.0] * 9 + [0.0]) * 100)
    assert corrected_level(0.9, exact) == pytest.approx(0.9, abs=0.005)
    assert corrected_level(0.9, np.ones(1000)) == pytest.approx(0.8)
    assert corrected_level(0.9, np.zeros(1000)) == 0.99
    half = np.concatenate((np.full(CORRECTION // 2, np.nan), np.ones(CORRECTION // 2)))
    assert corrected_level(0.9, half) == pytest.approx(0.85)
    assert corrected_level(0.9, np.array(())) == 0.9


@pytest.mark.parametrize("factor", [0.6, 1.6])
def test_corrected_prediction_intervals_come_closer_to_the_requested_coverage_while_errors_change(
    factor: float,
) -> None:
    """Each day has smaller, or larger, errors than the day before."""
    scores = np.abs(np.random.default_rng(7).normal(size=1728)) * np.repeat(factor ** np.arange(6), 288)
    covered, corrected = np.full(1728, np.nan), np.full(1728, np.nan)
    for at in range(20, 1728):
        found = corrected_widths(window_scores(scores[:at], ()), 0.9, covered[:at])
        assert found is not None
        covered[at], corrected[at] = scores[at] <= found.uncorrected, scores[at] <= found.corrected
    assert abs(np.nanmean(corrected) - 0.9) < 0.06
    assert abs(np.nanmean(corrected) - 0.9) < abs(np.nanmean(covered) - 0.9) - 0.02


def test_the_drift_sum_grows_with_larger_forecast_errors_and_falls_with_usual_ones() -> None:
    chance = random.Random(1)
    usual = [abs(chance.gauss(0, 1)) for _ in range(288)]
    larger = [abs(chance.gauss(0, 2)) for _ in range(60)]
    mean = sum(usual) / len(usual)
    assert drift_sum(usual, mean) < 8
    assert drift_sum(usual + larger, mean) > 20
    assert drift_sum(usual + larger + usual, mean) < 8


def steps_of(*minutes: MinuteValue, aggregate: str = "sum") -> Steps:
    found = Steps(300, aggregate)  # type: ignore[arg-type]
    for one in minutes:
        found.add(one)
    return found


def test_a_sum_over_a_partly_observed_step_is_scaled_up_unless_less_than_half_was_observed() -> None:
    full = [MinuteValue(minute, 6.0, 1.0) for minute in range(5)]
    assert steps_of(*full).value(0) == 30.0
    assert steps_of(*full[:3]).value(0) == 30.0
    assert steps_of(*full[:3], MinuteValue(3, 3.0, 0.5)).value(0) == 30.0
    assert np.isnan(steps_of(*full[:2]).value(0))
    assert np.isnan(steps_of(*full[:2], MinuteValue(2, 9.0, 0.0)).value(0))


def test_a_mean_over_minutes_is_weighted_by_their_observed_shares() -> None:
    minutes = [
        MinuteValue(0, 10.0, 1.0),
        MinuteValue(1, 20.0, 1.0),
        MinuteValue(2, 40.0, 0.5),
        MinuteValue(3, None, 1),
    ]
    assert steps_of(*minutes, aggregate="mean").value(0) == pytest.approx(50.0 / 2.5)


def test_a_later_revision_of_a_minute_value_changes_the_value_of_its_forecast_step() -> None:
    found = steps_of(*(MinuteValue(minute, 6.0, 1.0) for minute in range(5)))
    assert found.value(0) == 30.0
    found.add(MinuteValue(2, 16.0, 1.0))
    assert found.value(0) == 40.0


def test_counts_of_minutes_are_added_and_means_averaged() -> None:
    means = ("occupancy.mean", "occupancy.max", "density.per_km_lane", "level_of_service", "dwell_s.mean")
    assert {aggregate_of(name) for name in means} == {"mean"}
    assert aggregate_of("car.forward") == "sum"


def test_a_series_description_with_an_incomplete_daily_profile_is_refused() -> None:
    with pytest.raises(ValueError, match="profile of 96 values"):
        SeriesSpec(step_s=900, profile=((1.0,) * 95,) * 7)


def test_forecast_skill_beyond_a_day_ahead_uses_a_naive_value_that_was_known_at_the_forecast_time(
    tmp_path: Path,
) -> None:
    half_days = spec(step_s=43_200, lags=2, profile=((7.0, 7.0),) * 7, scores=())
    config = ForecastConfig(name="flow", measure="bridge", value="car.forward", model="flow")
    forecaster = Forecaster(config, model(tmp_path, described=half_days))
    chance = random.Random(4)
    values = [float(chance.randrange(20, 80)) for _ in range(30)]
    for step, value in enumerate(values):
        for minute in range(360, 720):
            found = forecaster.add(MinuteValue(step * 720 + minute, value / 720, 1.0), "", "road")
    assert found is not None
    skill = found.skill[1]
    assert (skill.horizon, skill.steps) == (3, 27)
    usual = float(half_days.unscaled(np.array([7.0]))[0])
    expected = [abs(values[3] - usual), *(abs(values[step] - values[step - 4]) for step in range(4, 30))]
    assert skill.naive_mae == pytest.approx(np.mean(expected), abs=0.001)
