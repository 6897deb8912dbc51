"""Lines and zones: what is counted once is counted once."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from edge_agent.capture.simulated import COUNTING_LINES
from stream.analyse.geometry import crosses, distance_px, inside
from stream.analyse.lines import BACKWARD, FORWARD, LineCounter
from stream.analyse.zones import LEAVE_FRAMES, ZoneWatch

DIAGONAL_PX = 734.0
UP = (320.0, 360.0), (320.0, 0.0)
coordinate = st.floats(0, 640)
point = st.tuples(coordinate, coordinate)


def walk(counter: LineCounter, xs: list[float], track: str = "t", y: float = 180.0) -> list[str]:
    return [d for x in xs if (d := counter.step(track, (x, y)))]


def test_right_of_a_line_that_runs_upwards_is_right_in_the_picture() -> None:
    assert distance_px(*UP, (400.0, 100.0)) == 80.0
    assert distance_px(*UP, (300.0, 100.0)) == -20.0


@given(end=point, p=point)
def test_a_line_turned_around_has_its_sides_exchanged(end: tuple[float, float], p: tuple[float, float]) -> None:
    start = (-10.0, -10.0)
    assert distance_px(start, end, p) == pytest.approx(-distance_px(end, start, p), abs=1e-6)


def test_one_pass_is_one_crossing_with_its_direction() -> None:
    assert walk(LineCounter(*UP, DIAGONAL_PX), [100.0 + 20 * i for i in range(25)]) == [FORWARD]
    assert walk(LineCounter(*UP, DIAGONAL_PX), [600.0 - 20 * i for i in range(25)]) == [BACKWARD]


def test_the_scenes_count_rightwards_as_forward() -> None:
    for (x0, y0), (x1, y1) in COUNTING_LINES.values():
        counter = LineCounter((x0 * 640, y0 * 360), (x1 * 640, y1 * 360), DIAGONAL_PX)
        assert walk(counter, [50.0 + 25 * i for i in range(24)]) == [FORWARD]


@given(
    jitter=st.lists(st.floats(-4.0, 4.0), min_size=5, max_size=60), before=st.integers(1, 5), after=st.integers(2, 6)
)
def test_trembling_on_the_line_counts_a_pass_once(jitter: list[float], before: int, after: int) -> None:
    xs = [250.0] * before + [320.0 + j for j in jitter] + [400.0] * after
    assert walk(LineCounter(*UP, DIAGONAL_PX), xs) == [FORWARD]


@given(jitter=st.lists(st.floats(-4.0, 4.0), min_size=1, max_size=60))
def test_trembling_on_the_line_and_going_back_counts_nothing(jitter: list[float]) -> None:
    xs = [250.0, 260.0, *(320.0 + j for j in jitter), 260.0, 250.0, 240.0]
    assert walk(LineCounter(*UP, DIAGONAL_PX), xs) == []


@given(at=st.integers(1, 20))
def test_one_false_box_beyond_the_line_counts_nothing(at: int) -> None:
    xs = [200.0] * 22
    xs[at] = 420.0
    assert walk(LineCounter(*UP, DIAGONAL_PX), xs) == []


@given(passes=st.integers(1, 8))
def test_every_pass_is_counted_with_alternating_directions(passes: int) -> None:
    xs = [200.0] * 3
    for number in range(passes):
        xs += [440.0 if number % 2 == 0 else 200.0] * 3
    assert walk(LineCounter(*UP, DIAGONAL_PX), xs) == [(FORWARD, BACKWARD)[n % 2] for n in range(passes)]


def test_the_line_is_finite_and_its_ends_belong_to_it() -> None:
    short = (320.0, 200.0), (320.0, 100.0)
    assert walk(LineCounter(*short, DIAGONAL_PX), [200.0, 440.0, 460.0], y=250.0) == []
    assert walk(LineCounter(*short, DIAGONAL_PX), [200.0, 440.0, 460.0], y=150.0) == [FORWARD]
    assert crosses(*short, (200.0, 200.0), (440.0, 200.0))
    assert crosses(*short, (200.0, 100.0), (440.0, 100.0))


def test_what_begins_beyond_the_line_has_not_crossed_and_a_name_may_be_used_again() -> None:
    counter = LineCounter(*UP, DIAGONAL_PX)
    assert walk(counter, [440.0, 460.0, 480.0]) == []
    counter.forget("t")
    assert walk(counter, [200.0, 210.0, 220.0]) == []


SQUARE = ((100.0, 100.0), (200.0, 100.0), (200.0, 200.0), (100.0, 200.0))


@given(p=point)
def test_inside_a_square_is_what_it_says(p: tuple[float, float]) -> None:
    on_edge = p[0] in (100.0, 200.0) or p[1] in (100.0, 200.0)
    assume(not on_edge)
    assert inside(SQUARE, p) == (100 < p[0] < 200 and 100 < p[1] < 200)


def test_a_visit_is_told_once_when_it_has_lasted() -> None:
    watch = ZoneWatch(SQUARE, dwell_s=1.0)
    told = [watch.step("t", (150.0, 150.0), i * 250_000_000) for i in range(10)]
    assert [t for t in told if t is not None] == [1.0]
    assert told[4] == 1.0


def test_flicker_on_the_edge_is_one_visit_and_coming_back_is_another() -> None:
    watch = ZoneWatch(SQUARE, dwell_s=0.0)
    inside_, outside = (150.0, 150.0), (250.0, 150.0)
    told = [watch.step("t", p, i) for i, p in enumerate([inside_, outside, inside_, outside, outside, inside_])]
    assert sum(t is not None for t in told) == 1
    told = [watch.step("t", p, 100 + i) for i, p in enumerate([outside] * LEAVE_FRAMES + [inside_])]
    assert sum(t is not None for t in told) == 1
