"""Tests of the lens: the way of points and boxes from the undistorted picture to the frame and back."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError

from ingest.contract.records import Box, Lens, Optics

WIDTH, HEIGHT = 640, 360
EXACT_PX = 1e-4


def lens(model: str = "pinhole", focal: float = 400.0, *distortion: float) -> Lens:
    values = {"fx": focal, "fy": focal * 1.01, "cx": 322.0, "cy": 176.0}
    zoomed = {"fx": 0.7 * focal, "fy": 0.7 * focal, "cx": 318.0, "cy": 183.0}
    return Lens(optics=Optics(model=model, **values, distortion=distortion or (0.0,) * 4), **zoomed)


WIDE = lens("pinhole", 400.0, -0.3, 0.1, 0.0005, -0.0003, -0.015)
PINCUSHION = lens("pinhole", 600.0, 0.1, 0.02, -0.001, 0.002)
FISHEYE = lens("fisheye", 290.0, -0.02, 0.005, -0.002, 0.0003)
LENSES = [WIDE, PINCUSHION, FISHEYE]
small = st.floats(-0.002, 0.002)
pinholes = st.builds(  # lenses of a shorter focal length and this distortion show no ray in the corners
    lambda f, k1, k2, p1, p2: lens("pinhole", f, k1, k2, p1, p2),
    st.floats(450, 900),
    st.floats(-0.2, 0.2),
    st.floats(0.0, 0.05),
    small,
    small,
)
fisheyes = st.builds(
    lambda f, k1, k2: lens("fisheye", f, k1, k2, 0.0, 0.0), st.floats(300, 900), st.floats(-0.05, 0.05), small
)
points = st.tuples(st.floats(0, WIDTH), st.floats(0, HEIGHT))


@given(st.one_of(pinholes, fisheyes), points)
def test_a_point_that_is_undistorted_and_distorted_again_returns_to_its_place(
    one: Lens, point: tuple[float, float]
) -> None:
    straight = one.undistorted(point)
    assert straight is not None
    assert math.dist(one.distorted(straight), point) < EXACT_PX


@given(st.sampled_from(LENSES), points)
def test_a_point_that_is_distorted_and_undistorted_again_returns_to_its_place(
    one: Lens, point: tuple[float, float]
) -> None:
    ray = math.hypot((point[0] - one.cx) / one.fx, (point[1] - one.cy) / one.fy)
    assume(ray < 0.999 * one.optics.limit)
    found = one.undistorted(one.distorted(point))
    assert found is not None
    assert math.dist(found, point) < 100 * EXACT_PX  # a step in the frame is a larger one near the edge


@pytest.mark.parametrize("one", LENSES)
def test_points_are_distorted_as_by_opencv(one: Lens) -> None:
    optics = one.optics
    matrix = np.array([[optics.fx, 0, optics.cx], [0, optics.fy, optics.cy], [0, 0, 1]])
    rays = np.random.default_rng(1).uniform(-0.7, 0.7, (50, 1, 3))
    rays[..., 2] = 1.0
    project = cv2.fisheye.projectPoints if optics.model == "fisheye" else cv2.projectPoints
    expected = project(rays, np.zeros(3), np.zeros(3), matrix, np.array(optics.distortion))[0].reshape(-1, 2)
    found = [one.distorted((one.cx + one.fx * x, one.cy + one.fy * y)) for x, y, _ in rays[:, 0]]
    assert np.allclose(found, expected, atol=1e-6)


def test_points_beyond_the_fold_of_a_lens_count_as_points_at_the_fold() -> None:
    folding = lens("pinhole", 400.0, -0.3, 0.0, 0.0, 0.0)  # the radius 1.054 is mapped farthest
    distances = [
        math.dist(folding.distorted((folding.cx + 280 * r, folding.cy)), (322, 176)) for r in (0.9, 1.04, 2, 5)
    ]
    assert distances == sorted(distances)
    assert distances[-1] == pytest.approx(distances[-2])
    assert folding.undistorted((322 + 400 * 0.71, 176.0)) is None


def test_rays_beyond_eighty_degrees_have_no_place_in_an_undistorted_picture() -> None:
    equidistant = lens("fisheye", 200.0, 0.0, 0.0, 0.0, 0.0)
    assert equidistant.undistorted((322 + 200 * math.radians(79), 176.0)) is not None
    assert equidistant.undistorted((322 + 200 * math.radians(81), 176.0)) is None
    assert equidistant.undistorted_box(Box(0.0, 0.0, 20.0, 20.0)) is None


@given(st.sampled_from(LENSES), points, st.floats(4, 100), st.floats(4, 100))
def test_the_undistorted_box_of_a_region_contains_all_its_points_within_a_pixel(
    one: Lens, centre: tuple[float, float], wide: float, high: float
) -> None:
    box = Box(centre[0] - wide / 2, centre[1] - high / 2, centre[0] + wide / 2, centre[1] + high / 2)
    box = box.clipped(WIDTH, HEIGHT)
    around = one.undistorted_box(box)
    assert around is not None
    for u in (0.0, 0.3, 0.5, 1.0):
        for v in (0.0, 0.5, 0.8, 1.0):
            point = one.undistorted((box.left + u * box.width, box.top + v * box.height))
            assert point is not None
            assert around.left - 1.0 <= point[0] <= around.right + 1.0
            assert around.top - 1.0 <= point[1] <= around.bottom + 1.0


@given(st.sampled_from([WIDE, FISHEYE]), points, st.floats(10, 90), st.floats(10, 90))
def test_the_box_of_an_ellipse_is_mapped_to_the_frame_within_four_pixels(
    one: Lens, centre: tuple[float, float], wide: float, high: float
) -> None:
    straight = one.undistorted(centre)
    assert straight is not None
    box = Box(straight[0] - wide / 2, straight[1] - high / 2, straight[0] + wide / 2, straight[1] + high / 2)
    turns = np.linspace(0.0, math.tau, 60)
    outline = [one.distorted((straight[0] + wide / 2 * np.cos(t), straight[1] + high / 2 * np.sin(t))) for t in turns]
    found, (xs, ys) = one.distorted_box(box), np.array(outline).T
    assume(xs.min() > 0 and ys.min() > 0 and xs.max() < WIDTH and ys.max() < HEIGHT)
    assert np.allclose(found, (xs.min(), ys.min(), xs.max(), ys.max()), atol=4.0)  # 3.4 in 25,000 random boxes


@pytest.mark.parametrize(("model", "count"), [("pinhole", 3), ("pinhole", 6), ("fisheye", 3), ("fisheye", 5)])
def test_optics_with_another_number_of_coefficients_are_refused(model: str, count: int) -> None:
    with pytest.raises(ValidationError, match=f"{count} numbers in distortion of the model {model}"):
        lens(model, 400.0, *[0.0] * count)
