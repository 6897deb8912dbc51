"""Tests of points, lines and polygons in the picture."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from stream.analyse.geometry import distance_px, inside

UP = (320.0, 360.0), (320.0, 0.0)
SQUARE = ((100.0, 100.0), (200.0, 100.0), (200.0, 200.0), (100.0, 200.0))
coordinate = st.floats(0, 640)
point = st.tuples(coordinate, coordinate)


def test_the_right_side_of_a_line_that_runs_upwards_is_on_the_right_in_the_picture() -> None:
    assert distance_px(*UP, (400.0, 100.0)) == 80.0
    assert distance_px(*UP, (300.0, 100.0)) == -20.0


@given(end=point, p=point)
def test_reversing_the_direction_of_a_line_exchanges_its_sides(
    end: tuple[float, float], p: tuple[float, float]
) -> None:
    start = (-10.0, -10.0)
    assert distance_px(start, end, p) == pytest.approx(-distance_px(end, start, p), abs=1e-6)


@given(p=point)
def test_a_point_is_inside_a_square_if_both_coordinates_are_between_its_edges(p: tuple[float, float]) -> None:
    on_edge = p[0] in (100.0, 200.0) or p[1] in (100.0, 200.0)
    assume(not on_edge)
    assert inside(SQUARE, p) == (100 < p[0] < 200 and 100 < p[1] < 200)
