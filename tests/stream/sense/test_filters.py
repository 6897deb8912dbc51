"""Tests of the filters of readings: rate of change, outliers and units, against plain loops."""

from __future__ import annotations

import itertools
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ingest.contract.records import GOOD, Readings
from ingest.site import HampelConfig, SensorConfig, conversion
from stream.sense.clean import MAD_TO_SIGMA, RATE_IN_A_ROW, Cleaner, HampelFilter, RateFilter
from stream.sense.windows import Column

STEP_NS = 100_000_000
SENSOR = SensorConfig(name="t", source="simulated:t", quantity="temperature", unit="[degF]", low=-40, high=212)
values = st.one_of(st.floats(-50, 50), st.sampled_from([0.0, 0.5, 1.0]))
rows = st.lists(st.tuples(st.integers(0, 300).map(lambda step: step * STEP_NS), values), min_size=1, max_size=80)
ordered = rows.map(lambda found: sorted(found, key=lambda row: row[0]))


def parts(found: list[tuple[int, float]], cuts: list[int]) -> list[Column]:
    edges = sorted({0, len(found), *(cut for cut in cuts if cut < len(found))})
    return [
        Column(tuple(at for at, _ in found[a:b]), tuple(value for _, value in found[a:b]))
        for a, b in itertools.pairwise(edges)
    ]


def kept_by(one: RateFilter | HampelFilter, columns: list[Column]) -> list[bool]:
    return [keep for column in columns for keep in one.kept(column) or [True] * len(column.values)]


@given(found=st.one_of(rows, ordered), cuts=st.lists(st.integers(1, 80), max_size=5))
def test_the_rate_filter_drops_the_same_readings_as_a_loop_over_single_readings(
    found: list[tuple[int, float]], cuts: list[int]
) -> None:
    expected, last, dropped = [], found[0], 0
    for at_ns, value in found:
        passed_ns = at_ns - last[0]
        keep = passed_ns < 0 or abs(value - last[1]) <= 5.0 / 1e9 * passed_ns or dropped + 1 == RATE_IN_A_ROW
        last, dropped = ((at_ns, value), 0) if keep else (last, dropped + 1)
        expected.append(keep)
    assert kept_by(RateFilter(5.0), parts(found, cuts)) == expected


@given(found=rows, cuts=st.lists(st.integers(1, 80), max_size=5), min_deviation=st.sampled_from([0.0, 1.0]))
def test_the_hampel_filter_drops_the_same_readings_as_a_loop_over_single_readings(
    found: list[tuple[int, float]], cuts: list[int], min_deviation: float
) -> None:
    config = HampelConfig(readings=5, limit=3.0, min_deviation=min_deviation)
    expected = []
    for number in range(len(found)):
        window = [value for _, value in found[number - 4 : number + 1]] if number >= 4 else []
        if not window:
            expected.append(True)
            continue
        median = statistics.median(window)
        mad = statistics.median(abs(value - median) for value in window)
        expected.append(abs(window[-1] - median) <= max(3.0 * MAD_TO_SIGMA * mad, min_deviation))
    assert kept_by(HampelFilter(config), parts(found, cuts)) == expected


def readings(seq: int, found: list[float]) -> Readings:
    return Readings(
        sensor="t",
        epoch=1,
        seq=seq,
        quantity="temperature",
        unit="[degF]",
        times_ns=tuple((seq + n) * STEP_NS for n in range(len(found))),
        values=tuple(found),
        quality=(GOOD,) * len(found),
    )


def test_readings_are_converted_after_the_range_check_and_before_the_other_filters() -> None:
    """The range is in degrees Fahrenheit, as the device sends them; the rate is in degrees Celsius per second."""
    cleaner = Cleaner(SENSOR.model_copy(update={"convert_to": "Cel", "max_rate": 20.0}))
    kept = cleaner.clean(readings(0, [32.0, 35.6, 212.0, 213.0, 39.2]), 0)
    assert kept.values == pytest.approx((0.0, 2.0, 4.0))
    assert cleaner.dropped == {"range": 1, "rate": 1}


def test_a_spike_is_dropped_as_an_outlier_and_counted() -> None:
    cleaner = Cleaner(SENSOR.model_copy(update={"hampel": HampelConfig(min_deviation=1.0)}))
    kept = cleaner.clean(readings(0, [20.0 + 0.1 * (n % 3) for n in range(20)]), 0)
    assert len(kept.values) == 20
    assert cleaner.clean(readings(20, [20.0, 90.0, 20.1]), 0).values == (20.0, 20.1)
    assert cleaner.dropped == {"outlier": 1}


def test_both_filters_accept_a_sudden_lasting_change_of_the_value_after_a_few_readings() -> None:
    step = [20.0] * 20 + [90.0] * 20
    hampel = Cleaner(SENSOR.model_copy(update={"hampel": HampelConfig(min_deviation=1.0)}))
    assert hampel.clean(readings(0, step), 0).values.count(90.0) == 17
    rate = Cleaner(SENSOR.model_copy(update={"max_rate": 1.0}))
    assert rate.clean(readings(0, step), 0).values.count(90.0) == 20 - RATE_IN_A_ROW + 1


def test_filters_keep_their_state_while_the_sensor_is_unchanged_and_begin_anew_when_it_changes() -> None:
    config = SENSOR.model_copy(update={"max_rate": 1.0})
    cleaner = Cleaner(config)
    cleaner.clean(readings(0, [20.0]), 0)
    cleaner.use(config.model_copy())
    assert cleaner.clean(readings(1, [90.0]), 0).values == ()
    cleaner.use(config.model_copy(update={"max_rate": 2.0}))
    assert cleaner.clean(readings(2, [90.0]), 0).values == (90.0,)


@pytest.mark.parametrize(
    ("unit", "to", "value", "expected"),
    [
        ("[degF]", "Cel", 212.0, 100.0),
        ("Cel", "K", -273.15, 0.0),
        ("K", "[degF]", 273.15, 32.0),
        ("bar", "kPa", 1.5, 150.0),
        ("[psi]", "bar", 14.503773773, 1.0),
        ("km/h", "m/s", 36.0, 10.0),
        ("L/min", "m3/h", 1000.0, 60.0),
        ("kW.h", "J", 1.0, 3.6e6),
    ],
)
def test_readings_are_converted_between_units_by_the_known_factors_and_offsets(
    unit: str, to: str, value: float, expected: float
) -> None:
    scale, offset = conversion(unit, to)
    assert value * scale + offset == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"convert_to": "bar"}, "a unit of temperature"),
        ({"unit": "furlong", "convert_to": "m"}, "not unit = 'furlong'"),
        ({"hampel": {"readings": 6}}, "an odd number of readings, such as 7"),
    ],
)
def test_a_sensor_with_a_wrong_filter_or_unit_is_refused(settings: dict[str, object], text: str) -> None:
    with pytest.raises(ValidationError, match=text):
        SensorConfig.model_validate({**SENSOR.model_dump(), **settings})
