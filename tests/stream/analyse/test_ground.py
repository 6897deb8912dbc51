"""Tests of the ground plane: pixels to metres and back, the error of a position, and speeds with their error."""

from __future__ import annotations

import math
import random
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError

from ingest.site.ground import GroundConfig
from ingest.site.lens import LensConfig
from stream.analyse.ground import GroundPlane, GroundPoint, speed

SIZE = 640, 360
SECOND_NS = 1_000_000_000
ROAD = GroundConfig(corners=((0.1, 0.95), (0.9, 0.95), (0.6, 0.4), (0.4, 0.4)), width_m=7.0, length_m=40.0)


def pinhole(x_m: float, y_m: float, height_m: float = 6.0, focal_px: float = 500.0) -> tuple[float, float]:
    """Return the pixel of a ground point, seen by a camera that looks horizontally along y from ``height_m``."""
    return 320.0 + focal_px * x_m / y_m, 100.0 + focal_px * height_m / y_m


def seen_by_pinhole(left_m: float, near_m: float, width_m: float, length_m: float) -> GroundPlane | None:
    corners = ((left_m, near_m), (left_m + width_m, near_m))
    far = ((left_m + width_m, near_m + length_m), (left_m, near_m + length_m))
    pixels = [pinhole(*corner) for corner in (*corners, *far)]
    if not all(0 <= x <= SIZE[0] and 0 <= y <= SIZE[1] for x, y in pixels):
        return None
    relative: Any = tuple((x / SIZE[0], y / SIZE[1]) for x, y in pixels)
    return GroundPlane.of(GroundConfig(corners=relative, width_m=width_m, length_m=length_m), *SIZE)


@given(st.floats(-4, 4), st.floats(14, 30), st.floats(2, 8), st.floats(5, 60), st.floats(-5, 5), st.floats(13, 90))
def test_ground_plane_finds_every_point_that_a_pinhole_camera_sees(
    left_m: float, near_m: float, width_m: float, length_m: float, x_m: float, y_m: float
) -> None:
    plane = seen_by_pinhole(left_m, near_m, width_m, length_m)
    assume(plane is not None)
    assert plane is not None
    assert plane.to_metres(pinhole(x_m, y_m)) == pytest.approx((x_m - left_m, y_m - near_m), abs=1e-3)


def test_corners_of_the_ground_plane_rectangle_have_the_configured_distances() -> None:
    plane = GroundPlane.of(ROAD, *SIZE)
    pixels = [(x * SIZE[0], y * SIZE[1]) for x, y in ROAD.corners]
    found = [plane.to_metres(pixel) for pixel in pixels]
    for one, expected in zip(found, ((0, 0), (7, 0), (7, 40), (0, 40)), strict=True):
        assert one == pytest.approx(expected, abs=1e-6)


def test_points_above_the_horizon_have_no_position_on_the_ground_plane() -> None:
    plane = seen_by_pinhole(-3.0, 20.0, 6.0, 30.0)
    assert plane is not None
    assert plane.to_metres((320.0, 99.0)) is None
    assert plane.at((320.0, 20.0), 0) is None


def test_the_error_of_a_ground_position_grows_with_the_distance_from_the_camera() -> None:
    plane = seen_by_pinhole(-3.0, 20.0, 6.0, 30.0)
    assert plane is not None
    points = [plane.at(pinhole(0.0, y_m), 0) for y_m in (15.0, 40.0, 80.0)]
    errors = [point.error_m for point in points if point]
    assert len(errors) == 3
    assert errors[0] < errors[1] < errors[2]


@given(st.floats(-40, 40), st.floats(-40, 40), st.integers(3, 30))
def test_the_measured_speed_of_a_uniform_motion_is_exact(x_m_s: float, y_m_s: float, count: int) -> None:
    points = [GroundPoint(n * SECOND_NS // 5, x_m_s * n / 5, y_m_s * n / 5, 0.1) for n in range(count)]
    found = speed(points)
    assert found is not None
    assert found.m_s == pytest.approx(math.hypot(x_m_s, y_m_s), abs=1e-6)


def test_the_reported_speed_error_covers_the_true_speed_in_nine_of_ten_noisy_paths() -> None:
    noise, covered = random.Random(5), 0
    for _ in range(300):
        points = [
            GroundPoint(n * SECOND_NS // 10, noise.gauss(0, 0.3), 12.0 * n / 10 + noise.gauss(0, 0.3), 0.3)
            for n in range(15)
        ]
        found = speed(points)
        assert found is not None
        covered += abs(found.y_m_s - 12.0) <= 2 * found.error_m_s
    assert covered >= 270


def test_measuring_a_speed_needs_three_points_at_different_times() -> None:
    assert speed([GroundPoint(n * SECOND_NS, 0.0, n, 0.1) for n in range(2)]) is None
    assert speed([GroundPoint(SECOND_NS, 0.0, n, 0.1) for n in range(5)]) is None


@pytest.mark.parametrize(
    "corners",
    [
        ((0.1, 0.9), (0.9, 0.9), (0.4, 0.4), (0.6, 0.4)),  # far corners exchanged
        ((0.1, 0.9), (0.5, 0.9), (0.9, 0.9), (0.4, 0.4)),  # three corners on a line
        ((0.1, 0.9), (0.1, 0.9), (0.6, 0.4), (0.4, 0.4)),  # one corner twice
    ],
)
def test_ground_plane_refuses_corners_that_form_no_convex_quadrilateral(corners: Any) -> None:
    with pytest.raises(ValidationError, match="four corners in order around a rectangle"):
        GroundConfig(corners=corners, width_m=7.0, length_m=40.0)


WIDE = LensConfig(
    width=640, height=360, fx=400, fy=400, cx=319.5, cy=179.5, distortion=(-0.3, 0.1, 0.0005, -0.0003, -0.015)
)
HEIGHT_M, DOWN = 5.0, math.radians(30.0)


def seen_by_wide_lens(x_m: float, y_m: float) -> tuple[float, float]:
    """Return the pixel of a ground point, by OpenCV, for a camera that looks down by 30° from 5 m."""
    across, down, ahead = x_m, HEIGHT_M * math.cos(DOWN) - y_m * math.sin(DOWN), 0.0
    ahead = HEIGHT_M * math.sin(DOWN) + y_m * math.cos(DOWN)
    matrix = np.array([[WIDE.fx, 0, WIDE.cx], [0, WIDE.fy, WIDE.cy], [0, 0, 1]])
    point = np.array([[[across, down, ahead]]])
    found = cv2.projectPoints(point, np.zeros(3), np.zeros(3), matrix, np.array(WIDE.distortion))[0].ravel()
    return float(found[0]) + 0.5, float(found[1]) + 0.5


def test_positions_on_the_ground_are_right_at_the_edges_of_a_wide_lens() -> None:
    corners_m = ((-3.0, 6.0), (3.0, 6.0), (3.0, 14.0), (-3.0, 14.0))
    relative: Any = tuple((x / 640, y / 360) for x, y in (seen_by_wide_lens(*corner) for corner in corners_m))
    config = GroundConfig(corners=relative, width_m=6.0, length_m=8.0)
    straight, bent = GroundPlane.of(config, *SIZE, WIDE.lens(*SIZE)), GroundPlane.of(config, *SIZE)
    errors: dict[bool, list[float]] = {True: [], False: []}
    for x_m, y_m in [(-5.0, 6.0), (0.0, 5.0), (4.0, 9.0), (-7.0, 12.0), (0.0, 20.0)]:
        for plane in (straight, bent):
            found = plane.to_metres(seen_by_wide_lens(x_m, y_m))
            assert found is not None
            errors[plane is straight].append(math.dist(found, (x_m + 3.0, y_m - 6.0)))
    assert max(errors[True]) < 0.01
    assert max(errors[False]) > 0.3


def test_a_point_that_the_lens_does_not_show_has_no_position_on_the_ground_plane() -> None:
    round_lens = LensConfig(
        model="fisheye", width=640, height=360, fx=200, fy=200, cx=320, cy=180, distortion=(0.0, 0.0, 0.0, 0.0)
    )
    near = GroundConfig(corners=((0.3, 0.9), (0.7, 0.9), (0.6, 0.5), (0.4, 0.5)), width_m=3.0, length_m=9.0)
    plane = GroundPlane.of(near, *SIZE, round_lens.lens(*SIZE))
    assert plane.to_metres((320.0, 340.0)) is not None
    assert plane.to_metres((1.0, 359.0)) is None
