"""Tests of the series of a forecast: files, dates, profiles, and training sets without knowledge of the future."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.sense.forecast.spec import Array
from tests.stream.sense.forecast.series import SLOTS, STEP_S, minutes, usual
from training.exceptions import SeriesUnusable
from training.forecast.dataset import Series, TrainingSet, naive, training_set
from training.forecast.table import CsvOptions, from_measures, read_csv

FIRST = 1_451_865_600 // STEP_S
"""Step of Monday, 4 January 2016, 0:00 UTC."""


def write(folder: Path, text: str) -> Path:
    path = folder / "flow.csv"
    path.write_text(text, encoding="utf-8")
    return path


def series(days: int, seed: int = 0, missing: float = 0.02) -> Series:
    chance = np.random.default_rng(seed)
    values = chance.poisson([usual(step % SLOTS) for step in range(days * SLOTS)]).astype(float)
    values[chance.random(len(values)) < missing] = np.nan
    return Series("flow", STEP_S, FIRST, values)


def framed(found: Series, stop: int) -> TrainingSet:
    return training_set(found, stop, "count", 4, 3)


def test_a_csv_file_with_ambiguous_dates_is_read_only_with_the_option_dates(tmp_path: Path) -> None:
    path = write(tmp_path, "\ufeff5 Minutes,Flow\n04/01/2016 0:00,12\n04/01/2016 0:05,13\n04/01/2016 0:15,\n")
    with pytest.raises(SeriesUnusable, match=r"line 2: time '04/01/2016 0:00': expected a time such as .* --dates"):
        read_csv(path, CsvOptions())
    found = read_csv(path, CsvOptions(dates="day-first"))
    assert (found.name, found.step_s, found.first) == ("Flow", 300, 1_451_865_600 // 300)
    assert found.values.tolist() == pytest.approx([12.0, 13.0, np.nan, np.nan], nan_ok=True)
    american = read_csv(path, CsvOptions(dates="month-first"))
    assert (american.first - found.first) * 300 == 86_400 * (31 + 29 + 31 - 3)  # 1 April


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("00:00,1 00:00,2", "line 3: expected each time once, as line 2 has the same"),
        ("00:00,1 00:05,x", "line 3: value 'x': expected a number or an empty cell"),
        ("00:00,1 00:05,2 00:12,2 00:17,2", "line 4: expected a time on the grid of steps of 300 s"),
        ("00:00,1 00:07,1", "most steps take 420 s: expected whole minutes that divide a day"),
        ("00:00,1 00:05,1 00:10,1 2316-01-04T00:15,1", "expected at most 2000000"),
        ("", "expected a header and rows"),
        ("x" * 140_000, r"field larger than field limit \(131072\): expected a CSV file"),
        (",,,,,,,,,,,,", "has only empty rows: expected times and values"),
    ],
)
def test_a_csv_file_that_is_no_time_series_is_refused_with_the_wrong_line(
    rows: str, message: str, tmp_path: Path
) -> None:
    lines = [row if len(row) > 10 else f"2016-01-04T{row}" for row in rows.split()]
    with pytest.raises(SeriesUnusable, match=message):
        read_csv(write(tmp_path, "\n".join(("time,flow", *lines))), CsvOptions())


def test_one_series_of_a_csv_file_with_several_must_be_chosen(tmp_path: Path) -> None:
    rows = "\n".join(f"2016-01-04T00:{5 * k:02},{lane},{k}" for k in range(4) for lane in ("a", "b"))
    path = write(tmp_path, f"time,lane,flow\n{rows}\n")
    options = {"value": "flow", "series": "lane"}
    with pytest.raises(SeriesUnusable, match="has the series a, b: expected one of them as --series"):
        read_csv(path, CsvOptions(**options))
    found = read_csv(path, CsvOptions(**options, chosen="b", time_zone="Europe/Berlin"))
    assert (found.name, found.values.tolist()) == ("b", [0.0, 1.0, 2.0, 3.0])
    assert found.first * 300 == 1_451_865_600 - 3600


def test_forecast_steps_are_summed_from_the_latest_revision_of_each_minute() -> None:
    found = list(minutes(range(4)))
    corrected = found[9].model_copy(update={"revision": 1, "values": {"car.forward": 20.0}})
    one = from_measures([*found, corrected, found[9]], "bridge", "car.forward", STEP_S, "UTC", "sum")
    assert (one.first, len(one.values)) == (FIRST, 4)
    counts = [20.0 if k == 1 else m.values["car.forward"] for k, m in enumerate(found[8:16])]
    assert one.values[1] == pytest.approx(sum(counts) * 15 / 8)
    with pytest.raises(SeriesUnusable, match=r"has no value 'bus.forward': expected one of car.forward"):
        from_measures(found, "bridge", "bus.forward", STEP_S, "UTC", "sum")


def test_minutes_of_a_wrong_camera_clock_do_not_make_an_endless_series() -> None:
    found = list(minutes(range(4)))
    wrong = found[0].model_copy(update={"start_ns": found[0].start_ns + 60 * 366 * 86_400 * 10**9})
    with pytest.raises(SeriesUnusable, match=r"measure 'bridge' spans 2\d+ steps: expected at most 2000000"):
        from_measures([*found, wrong], "bridge", "car.forward", STEP_S, "UTC", "sum")


def test_the_night_in_which_clocks_go_back_belongs_to_one_day() -> None:
    midnight = 1_477_778_400 // 300  # Sunday, 30 October 2016, 0:00 in Berlin
    found = Series("flow", 300, midnight, np.ones(25 * 12 + 6), "Europe/Berlin")
    assert found.days().tolist() == [0] * 25 * 12 + [1] * 6


@given(st.integers(0, 10**6), st.integers(3 * SLOTS, 5 * SLOTS))
@settings(max_examples=6, deadline=None)
def test_a_forecast_training_set_does_not_depend_on_values_after_its_end(seed: int, stop: int) -> None:
    found = series(6, seed)
    changed = Series("flow", STEP_S, FIRST, np.concatenate((found.values[:stop], found.values[stop:][::-1] + 50)))
    one, other = framed(found, stop), framed(changed, stop)
    rows = one.training_rows()
    assert one.spec == other.spec
    assert rows.tolist() == other.training_rows().tolist()
    for before, after in zip(one.examples, other.examples, strict=True):
        assert np.array_equal(before[rows], after[rows], equal_nan=True)


def test_residuals_of_training_days_are_as_large_as_residuals_of_later_days() -> None:
    found = series(12)
    one = framed(found, 6 * SLOTS)
    spread = one.examples.residuals[:, 0]
    before, after = np.nanstd(spread[: 6 * SLOTS - 1]), np.nanstd(spread[6 * SLOTS :])
    assert before == pytest.approx(after, rel=0.12)
    assert after == pytest.approx(1.0, abs=0.2)  # Poisson noise under the square root


def test_weekends_have_a_daily_profile_of_their_own() -> None:
    values = np.concatenate([np.full(SLOTS, 40.0 if day % 7 < 5 else 10.0) for day in range(14)])
    profile = np.array(framed(Series("flow", STEP_S, FIRST, values), 14 * SLOTS).spec.profile)
    one = framed(Series("flow", STEP_S, FIRST, values), 14 * SLOTS).spec
    assert one.unscaled(profile[:, 0]) == pytest.approx([40.0] * 5 + [10.0] * 2)


def test_the_naive_forecast_is_the_value_a_day_before_or_else_the_daily_profile() -> None:
    found = series(5, missing=0.0)
    found.values[3 * SLOTS + 7] = np.nan
    one = framed(found, 4 * SLOTS)
    forecasts: Array = one.spec.unscaled(naive(found, one))
    origin = 4 * SLOTS + 4  # its three steps are those after 4, 5 and 6 of the fifth day
    assert forecasts[origin, :2] == pytest.approx(found.values[3 * SLOTS + 5 : 3 * SLOTS + 7])
    assert forecasts[origin, 2] == pytest.approx(one.spec.unscaled(one.examples.expected)[origin, 2])


def test_the_seasonal_naive_forecast_beyond_a_day_ahead_uses_no_values_after_its_origin() -> None:
    slots = 4
    values = np.random.default_rng(2).poisson(40.0, 12 * slots).astype(float)
    found = Series("flow", 86_400 // slots, 1_451_865_600 // 21_600, values)
    one = training_set(found, 8 * slots, "count", 4, 6)
    origin = 9 * slots
    forecast = one.spec.unscaled(naive(found, one))[origin]
    days_before = [origin - 3, origin - 2, origin - 1, origin, origin - 3, origin - 2]
    assert forecast == pytest.approx(values[days_before])
