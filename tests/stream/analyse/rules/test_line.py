"""Tests of the rule ``line``."""

from __future__ import annotations

import itertools
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from edge_agent.sources.simulated import COUNTING_LINES
from ingest.site.entry import Anchor
from stream.analyse.crossing import BACKWARD, FORWARD, WAIT_S, LineCounter
from stream.analyse.geometry import crosses
from stream.analyse.rules.line import LineRule
from tests.stream.analyse.rules.scenes import play, scene, track

DIAGONAL_PX = 734.0
UP = (320.0, 360.0), (320.0, 0.0)
coordinate = st.floats(0, 640)
point = st.tuples(coordinate, coordinate)


def walk(counter: LineCounter, xs: list[float], track: str = "t", y: float = 180.0) -> list[str]:
    return [d for x in xs if (d := counter.step(track, (x, y)))]


def test_one_pass_of_an_object_over_a_line_is_one_crossing_with_a_direction() -> None:
    assert walk(LineCounter(*UP, DIAGONAL_PX), [100.0 + 20 * i for i in range(25)]) == [FORWARD]
    assert walk(LineCounter(*UP, DIAGONAL_PX), [600.0 - 20 * i for i in range(25)]) == [BACKWARD]


def test_a_crossing_to_the_right_counts_as_forward_on_the_lines_of_the_simulated_scenes() -> None:
    for (x0, y0), (x1, y1) in COUNTING_LINES.values():
        counter = LineCounter((x0 * 640, y0 * 360), (x1 * 640, y1 * 360), DIAGONAL_PX)
        assert walk(counter, [50.0 + 25 * i for i in range(24)]) == [FORWARD]


@pytest.mark.parametrize(("anchor", "crossings"), [("centre", 0), ("foot", 1)])
def test_a_truck_whose_centre_is_beyond_the_line_from_the_start_is_counted_by_its_foot(
    anchor: Anchor, crossings: int
) -> None:
    rule = LineRule(name="l", camera="c", pipeline="p", start=(0.0, 0.5), end=(1.0, 0.5), anchor=anchor)
    # the truck fills the lower part of the picture, and then drives away from the camera
    boxes = [(0.0, 340.0 - 14 * n) for n in range(20)]
    tracks = [[track(320.0, (top + bottom) / 2, size=(200.0, bottom - top))] for top, bottom in boxes]
    assert len(play(rule.watch(640, 360), tracks)) == crossings


def test_a_partly_hidden_vehicle_is_counted_if_an_earlier_detection_reached_the_minimum_score() -> None:
    rule = LineRule(name="l", camera="c", pipeline="p", start=(0.5, 1.0), end=(0.5, 0.0), min_score=0.5)
    xs = [200.0 + 30 * n for n in range(10)]
    for best_score, crossings in ((0.6, 1), (0.4, 0)):
        tracks = [[track(x, 180.0, score=0.2)._replace(best_score=best_score)] for x in xs]
        assert len(play(rule.watch(640, 360), tracks)) == crossings


@given(
    jitter=st.lists(st.floats(-4.0, 4.0), min_size=5, max_size=60), before=st.integers(1, 5), after=st.integers(2, 6)
)
def test_an_object_that_trembles_on_the_line_and_crosses_is_counted_once(
    jitter: list[float], before: int, after: int
) -> None:
    xs = [250.0] * before + [320.0 + j for j in jitter] + [400.0] * after
    assert walk(LineCounter(*UP, DIAGONAL_PX), xs) == [FORWARD]


@given(jitter=st.lists(st.floats(-4.0, 4.0), min_size=1, max_size=60))
def test_an_object_that_trembles_on_the_line_and_goes_back_is_not_counted(jitter: list[float]) -> None:
    xs = [250.0, 260.0, *(320.0 + j for j in jitter), 260.0, 250.0, 240.0]
    assert walk(LineCounter(*UP, DIAGONAL_PX), xs) == []


@given(at=st.integers(1, 20))
def test_one_false_detection_beyond_the_line_is_not_counted_as_a_crossing(at: int) -> None:
    xs = [200.0] * 22
    xs[at] = 420.0
    assert walk(LineCounter(*UP, DIAGONAL_PX), xs) == []


@given(passes=st.integers(1, 8))
def test_every_pass_of_an_object_that_goes_to_and_fro_is_a_crossing_in_its_direction(passes: int) -> None:
    xs = [200.0] * 3
    for number in range(passes):
        xs += [440.0 if number % 2 == 0 else 200.0] * 3
    assert walk(LineCounter(*UP, DIAGONAL_PX), xs) == [(FORWARD, BACKWARD)[n % 2] for n in range(passes)]


def test_a_path_through_a_line_or_one_of_its_ends_is_a_crossing_and_a_path_beside_it_is_not() -> None:
    short = (320.0, 200.0), (320.0, 100.0)
    assert walk(LineCounter(*short, DIAGONAL_PX), [200.0, 440.0, 460.0], y=250.0) == []
    assert walk(LineCounter(*short, DIAGONAL_PX), [200.0, 440.0, 460.0], y=150.0) == [FORWARD]
    assert crosses(*short, (200.0, 200.0), (440.0, 200.0))
    assert crosses(*short, (200.0, 100.0), (440.0, 100.0))


def test_a_track_that_stays_on_one_side_of_the_line_never_crosses() -> None:
    counter = LineCounter(*UP, DIAGONAL_PX)
    assert walk(counter, [440.0, 460.0, 480.0]) == []
    counter.forget("t")
    assert walk(counter, [200.0, 210.0, 220.0]) == []


SHORT = (320.0, 200.0), (320.0, 100.0)
"""A line upwards, from y = 200 to y = 100."""


@pytest.mark.parametrize(
    ("way", "crossed"),
    [
        ([(300, 180), (340, 200), (380, 300)], [FORWARD]),  # through it at y = 190, and then away downwards
        ([(300, 210), (340, 210), (345, 120)], []),  # past its end, and then back up behind it
        ([(300, 150), (318, 150), (318, 260), (322, 260), (340, 260), (345, 260)], []),  # along it and round its end
        ([(300, 260), (318, 260), (318, 150), (322, 150), (340, 260), (345, 260)], [FORWARD]),
        ([(300, 150), (320, 150), (340, 150), (345, 150)], [FORWARD]),  # a frame on the line itself
    ],
)
def test_a_path_crosses_a_line_only_if_it_passes_between_the_ends_of_the_line(
    way: list[tuple[float, float]], crossed: list[str]
) -> None:
    counter = LineCounter(*SHORT, DIAGONAL_PX)
    assert [d for anchor in way if (d := counter.step("t", anchor))] == crossed


height = st.integers(0, 360)
left = st.tuples(st.integers(0, 310), height)
right = st.tuples(st.integers(330, 640), height)


@st.composite
def visits(draw: st.DrawFn) -> list[list[tuple[int, int]]]:
    """Draw the positions of a track that stays for a few frames on one side of the line, then on the other side, and
    so on."""
    count = draw(st.integers(2, 6))
    return [draw(st.lists((left, right)[n % 2], min_size=2, max_size=4)) for n in range(count)]


@given(stays=visits())
def test_a_random_path_crosses_a_line_if_it_passes_between_the_ends_of_the_line(
    stays: list[list[tuple[int, int]]],
) -> None:
    expected = []
    for number, (stay, following) in enumerate(itertools.pairwise(stays)):
        (ax, ay), (bx, by) = stay[-1], following[0]
        y = ay + Fraction((by - ay) * (320 - ax), bx - ax)
        assume(y not in (100, 200))
        if 100 < y < 200:
            expected.append((FORWARD, BACKWARD)[number % 2])
    counter = LineCounter(*SHORT, DIAGONAL_PX)
    assert [d for stay in stays for anchor in stay if (d := counter.step("t", anchor))] == expected


@given(
    trembling=st.lists(
        st.tuples(st.sampled_from((318, 322)), st.sampled_from((90, 97, 105, 150, 195, 203, 210))), max_size=12
    ),
    start=st.tuples(st.integers(200, 310), height),
    stop=st.tuples(st.integers(330, 440), height),
)
def test_a_trembling_box_crosses_a_line_if_its_path_goes_through_the_line_and_not_round_an_end(
    trembling: list[tuple[int, int]], start: tuple[int, int], stop: tuple[int, int]
) -> None:
    way = [start, *trembling, stop]
    net = 0
    for (ax, ay), (bx, by) in itertools.pairwise(way):
        if (ax < 320) != (bx < 320):
            y = ay + Fraction((by - ay) * (320 - ax), bx - ax)
            assume(y not in (100, 200))
            net += (1 if bx > ax else -1) * (100 < y < 200)
    counter = LineCounter(*SHORT, DIAGONAL_PX)
    counted = [d for anchor in (*way, stop) if (d := counter.step("t", anchor))]
    assert counted == ([FORWARD] if net > 0 else [])


@pytest.mark.parametrize(("car_from_s", "crossed"), [(0.0, True), (1.0 + WAIT_S, True), (1.5 + WAIT_S, False)])
def test_a_line_crossing_waits_for_a_limited_time_for_the_label_of_its_track(
    car_from_s: float, crossed: bool
) -> None:
    rule = LineRule(name="r", camera="c", pipeline="p", labels=("car",), start=(0.5, 1.0), end=(0.5, 0.0))
    watch = rule.watch(640, 360)
    found = []
    for n, x in enumerate([300.0, 340.0, *[360.0] * 10]):
        label = "car" if n * 0.5 >= car_from_s else "truck"
        found += watch.observe(scene(n * 0.5, track(x, 180.0, label=label)), ())
    assert [one[0].details for one in found] == [{"direction": FORWARD}] * crossed


def test_a_stationary_track_crosses_no_line() -> None:
    rule = LineRule(name="r", camera="c", pipeline="p", start=(0.5, 1.0), end=(0.5, 0.0))
    for at_rest in (False, True):
        watch = rule.watch(640, 360)
        scenes = [scene(n * 0.2, track(x, 180.0, at_rest=at_rest)) for n, x in enumerate(range(200, 460, 20))]
        assert sum(len(watch.observe(one, ())) for one in scenes) == (not at_rest)
