"""Tests of hopping windows, session windows and corrected windows, against computations over all readings at once."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ingest.contract.records import GOOD, Event, Readings
from ingest.site import ALLOWED_LATENESS_S, SensorConfig
from stream.sense.hopping import HoppingWindows
from stream.sense.rules.threshold import ThresholdRule
from stream.sense.sensor import SensorWatch
from stream.sense.sessions import SessionWindows
from stream.sense.windows import Column, EventTimeWindows, ReadingWindow

SECOND_NS = 10**9
STEP_NS = SECOND_NS // 10
LATENESS_STEPS = round(ALLOWED_LATENESS_S * 10)
FAR_NS = 10**14
"""A time after all windows, in ns."""
whole = st.integers(-1000, 1000).map(float)
steps = st.lists(st.tuples(st.integers(100, 400), whole), min_size=1, max_size=80)
cuts = st.lists(st.integers(1, 80), max_size=5)


def arrivals(rows: list[tuple[int, float]], seed: int, lateness: int = LATENESS_STEPS) -> list[tuple[int, float]]:
    """Return readings in a random order in which none is later than the allowed lateness."""
    chance = random.Random(seed)
    delayed = sorted(((step + chance.uniform(0, lateness - 1), step, value) for step, value in rows))
    return [(step * STEP_NS, value) for _, step, value in delayed]


def fed(windows: EventTimeWindows, rows: list[tuple[int, float]], at: list[int]) -> list[tuple[int, int, float]]:
    """Return the windows that the readings close, and two readings long after them."""
    found: list[ReadingWindow] = []
    edges = sorted({0, len(rows), *(cut for cut in at if cut < len(rows))})
    for a, b in itertools.pairwise(edges):
        found += windows.add(Column([at_ns for at_ns, _ in rows[a:b]], [value for _, value in rows[a:b]]))
    found += windows.add(Column([FAR_NS, 2 * FAR_NS], [0.0, 0.0]))
    assert windows.late == windows.set_back == 0
    return [(one.start_ns, one.count, one.total) for one in found if one.start_ns < FAR_NS // 2]


@given(
    rows=st.lists(st.integers(0, 120), min_size=1, max_size=40),
    ticks=st.sets(st.integers(0, 200), max_size=20),
    panes=st.integers(1, 4),
)
def test_the_hopping_windows_of_a_silent_sensor_do_not_depend_on_the_times_of_their_evaluation(
    rows: list[int], ticks: set[int], panes: int
) -> None:
    """All windows with a reading are evaluated, each once, whenever the worker finds the time."""
    found = []
    for times in (sorted({*ticks, 1000}), [1000]):
        windows = HoppingWindows(0.7 * panes, 0.7)
        closed = windows.add(Column([step * STEP_NS for step in sorted(rows)], [1.0] * len(rows)))
        begin_ns = max(rows) * STEP_NS
        closed += [one for tick in times for one in windows.due(begin_ns + tick * STEP_NS)]
        found.append([(one.start_ns, one.count) for one in closed])
        assert windows.pending_ns is None
    assert found[0] == found[1]


@settings(max_examples=50)
@given(rows=steps, at=cuts, seed=st.integers(0, 99), panes=st.integers(1, 4))
def test_hopping_windows_in_any_order_within_the_lateness_equal_a_batch_computation(
    rows: list[tuple[int, float]], at: list[int], seed: int, panes: int
) -> None:
    expected = []
    for end in range(0, 600, 7):
        inside = [value for step, value in rows if end - 7 * panes <= step < end]
        if inside:
            expected.append(((end - 7 * panes) * STEP_NS, len(inside), sum(inside)))
    assert fed(HoppingWindows(0.7 * panes, 0.7), arrivals(rows, seed), at) == expected


@settings(max_examples=50)
@given(rows=steps, at=cuts, seed=st.integers(0, 99))
def test_session_windows_in_any_order_within_the_lateness_equal_a_batch_computation(
    rows: list[tuple[int, float]], at: list[int], seed: int
) -> None:
    expected: list[list[tuple[int, float]]] = []
    for step, value in sorted(rows):
        last = expected[-1][-1][0] if expected else -100
        if step - last <= 8 and step // 100 == last // 100:
            expected[-1].append((step, value))
        else:
            expected.append([(step, value)])
    batch = [(one[0][0] * STEP_NS, len(one), sum(value for _, value in one)) for one in expected]
    assert fed(SessionWindows(10.0, 0.8), arrivals(rows, seed), at) == batch


def test_a_reading_before_a_closed_session_is_late_in_the_same_epoch_and_opens_a_session_in_a_new_one() -> None:
    windows = SessionWindows(60.0, 1.0)
    assert windows.add(Column([10 * SECOND_NS, 20 * SECOND_NS], [1.0, 2.0]))[0].start_ns == 10 * SECOND_NS
    assert windows.add(Column([10 * SECOND_NS], [1.0])) == []
    assert windows.late == 1
    windows.begin_epoch()
    windows.add(Column([5 * SECOND_NS], [1.0]))
    assert (windows.late, windows.set_back) == (1, 1)
    assert [one.start_ns for one in windows.add(Column([9 * SECOND_NS], [1.0]))] == [5 * SECOND_NS]


def test_the_last_hopping_windows_and_session_of_a_silent_sensor_are_due_after_their_end() -> None:
    hopping, session = HoppingWindows(2.0, 1.0), SessionWindows(60.0, 3.0)
    for windows in (hopping, session):
        windows.add(Column([10 * SECOND_NS, 11 * SECOND_NS], [1.0, 2.0]))
    assert hopping.pending_ns == 12 * SECOND_NS
    assert hopping.due(13 * SECOND_NS) == [
        ReadingWindow(9 * SECOND_NS, 1, 1.0),
        ReadingWindow(10 * SECOND_NS, 2, 3.0),
    ]
    assert hopping.due(13 * SECOND_NS) == []
    assert session.pending_ns == 15 * SECOND_NS
    assert session.due(15 * SECOND_NS - 1) == []
    assert session.due(15 * SECOND_NS) == [ReadingWindow(10 * SECOND_NS, 2, 3.0, seen=2)]


SENSOR = SensorConfig(name="t", source="simulated:t", quantity="temperature", unit="Cel", lateness_s=20.0)
HOT = ThresholdRule(name="hot", sensor="t", window_s=1.0, min_readings=1, above=50.0)


def events(rows: list[tuple[int, float]], sensor: SensorConfig = SENSOR, together: int = 1) -> list[Event]:
    watch, found = SensorWatch("t", sensor, [HOT]), list[Event]()
    for seq in range(0, len(rows), together):
        part = rows[seq : seq + together]
        column = Readings(
            sensor="t",
            epoch=1,
            seq=seq,
            quantity="temperature",
            unit="Cel",
            times_ns=tuple(at_ns for at_ns, _ in part),
            values=tuple(value for _, value in part),
            quality=(GOOD,) * len(part),
        )
        found += watch.step(column, 0, 0.0)
    return found


def test_late_readings_within_the_lateness_correct_an_evaluated_window() -> None:
    """The window from 2 s to 3 s is evaluated without its hot readings, which come seven seconds late."""
    timely = [(step * STEP_NS, 20.0) for step in range(0, 100, 5)]
    late = [(step * STEP_NS, 90.0) for step in range(21, 29)]
    (event,) = events([*timely, *late], together=20)
    assert event.data.captured_ns == 2 * SECOND_NS
    assert event.data.details["value"] == pytest.approx((2 * 20 + 8 * 90) / 10)
    assert events([*timely, *late], SENSOR.model_copy(update={"lateness_s": 1.0}), together=20) == []


@settings(max_examples=50)
@given(rows=st.lists(st.tuples(st.integers(0, 100), st.sampled_from([20.0, 90.0])), min_size=1, max_size=60))
def test_corrected_windows_report_every_breach_of_a_batch_computation(rows: list[tuple[int, float]]) -> None:
    """Readings come in any order within the lateness. Windows that a correction has ended may be reported as well."""
    means: dict[int, list[float]] = {}
    for step, value in rows:
        means.setdefault(step // 10, []).append(value)
    begins, hot = set(), False
    for second, found in sorted(means.items()):
        was_hot, hot = hot, sum(found) / len(found) > 50.0
        begins |= {second * SECOND_NS} if hot and not was_hot else set()
    last = [(150 * STEP_NS, 20.0), (400 * STEP_NS, 20.0)]
    reported = {event.data.captured_ns for event in events([*((s * STEP_NS, v) for s, v in rows), *last])}
    assert begins <= reported
    assert all(at_ns // SECOND_NS in means for at_ns in reported)
    assert {
        event.data.captured_ns for event in events(sorted([*((s * STEP_NS, v) for s, v in rows), *last]))
    } == begins


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"window_s": 5.0, "hop_s": 2.0}, "window_s to be 1 to 1000 times hop_s"),
        ({"window_s": 5.0, "hop_s": 10.0}, "not 0.5 times"),
        ({"hop_s": 1.0, "session_gap_s": 1.0}, "but not both"),
    ],
)
def test_a_rule_with_impossible_windows_is_refused(settings: dict[str, float], text: str) -> None:
    with pytest.raises(ValidationError, match=text):
        ThresholdRule(name="r", sensor="t", above=1.0, **settings)
