"""Tests of the configuration of a camera's lens, and of the view of its undistorted picture."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError

from ingest.contract.codec import decode, encode
from ingest.contract.records import Lens
from ingest.exceptions import ConfigError
from ingest.site import CameraConfig, load
from ingest.site.lens import LensConfig

SITE = """
[[cameras]]
name = "gate"
source = "device:0"

[cameras.lens]
width = 1280
height = 720
fx = 800
fy = 802.5
cx = 644.0
cy = 352.0
distortion = [-0.3, 0.1, 0.0005, -0.0003, -0.015]
"""


def config(**values: Any) -> LensConfig:
    usual = {"width": 640, "height": 360, "fx": 400, "fy": 400, "cx": 322, "cy": 176}
    return LensConfig(**{**usual, "distortion": (-0.3, 0.1, 0.0005, -0.0003, -0.015), **values})


def test_a_camera_of_a_site_file_has_a_lens(tmp_path: Path) -> None:
    file = tmp_path / "site.toml"
    file.write_text(SITE)
    (camera,) = load(file).cameras
    assert camera.lens is not None
    assert (camera.lens.model, camera.lens.fy, camera.lens.zoom) == ("pinhole", 802.5, 0.0)
    assert CameraConfig.model_validate_json(camera.model_dump_json()) == camera


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("[-0.3, 0.1, 0.0005, -0.0003, -0.015]", "[-0.3, 0.1]", "k1, k2, p1, p2 and perhaps k3 of the model pinhole"),
        (
            "width = 1280",
            "model = 'fisheye'\nwidth = 1280",
            "k1, k2, k3, k4 of the model fisheye in distortion, not 5",
        ),
        ("cx = 644.0", "cx = 1400.0", "a principal point inside the picture of 1280 × 720 px, not cx = 1400"),
        ("fx = 800", "fx = 0", "a number greater than or equal to 1"),
        ("0.1, 0.0005", "0.0, 0.0005", "a distortion that can be undone in the whole picture"),
        ("width = 1280", "", "a value, as this key is required"),
        ("cx = 644.0", "cx = 644.0\nalpha = 1", "a known key"),
    ],
)
def test_a_lens_that_cannot_be_used_is_refused_with_the_expected_value(
    old: str, new: str, expected: str, tmp_path: Path
) -> None:
    file = tmp_path / "site.toml"
    file.write_text(SITE.replace(old, new))
    with pytest.raises(ConfigError, match=expected) as caught:
        load(file)
    assert "cameras.0.lens" in str(caught.value)


def test_a_wide_fisheye_may_have_corners_that_no_plane_picture_shows() -> None:
    found = config(model="fisheye", fx=200, fy=200, distortion=(0.0, 0.0, 0.0, 0.0))
    assert found.lens(640, 360).undistorted((1.0, 1.0)) is None
    with pytest.raises(ValidationError, match="can be undone"):
        config(model="fisheye", fx=200, fy=200, distortion=(-0.3, 0.0, 0.0, 0.0))


@pytest.mark.parametrize(
    "values",
    [{}, {"distortion": (0.1, 0.02, 0.0, 0.001)}, {"model": "fisheye", "distortion": (-0.02, 0.005, 0.0, 0.0)}],
)
def test_an_undistorted_picture_shows_the_frame_from_edge_to_edge_as_large_as_possible(
    values: dict[str, Any],
) -> None:
    lens = config(**values).lens(640, 360)
    edges = [(0.0, 176.5), (640.0, 176.5), (322.5, 0.0), (322.5, 360.0)]
    left, right, top, bottom = (point for edge in edges if (point := lens.undistorted(edge)))
    assert left[0] >= -0.5
    assert top[1] >= -0.5
    assert right[0] <= 640.5
    assert bottom[1] <= 360.5
    assert right[0] - left[0] > 639 or bottom[1] - top[1] > 359


def test_an_undistorted_picture_of_a_round_fisheye_shows_up_to_80_degrees() -> None:
    lens = config(model="fisheye", fx=200, fy=200, cx=319.5, cy=179.5, distortion=(0.0, 0.0, 0.0, 0.0)).lens(640, 360)
    right = lens.undistorted((320.0 + 200 * math.radians(79.99), 180.0))
    assert right == pytest.approx((640.0, 180.0), abs=1.0)


def test_zoom_is_the_size_of_objects_in_the_middle_of_the_undistorted_picture() -> None:
    lens = config(zoom=1.25).lens(640, 360)
    (x, y), (right, down) = (lens.undistorted((322.5 + d, 176.5 + d)) or (0.0, 0.0) for d in (0, 1))
    assert (x, y) == pytest.approx((322.5, 176.5), abs=1e-3)
    assert (right - x, down - y) == pytest.approx((1.25, 1.25), abs=1e-3)


def test_a_lens_is_scaled_to_the_size_of_a_frame() -> None:
    whole, half = config().lens(640, 360), config().lens(320, 180)
    point = whole.undistorted((600.0, 40.0))
    smaller = half.undistorted((300.0, 20.0))
    assert point is not None
    assert smaller == pytest.approx((point[0] / 2, point[1] / 2), abs=1e-6)


def test_ground_corners_beyond_eighty_degrees_of_a_wide_fisheye_are_refused() -> None:
    wide = config(model="fisheye", fx=200, fy=200, distortion=(0.0, 0.0, 0.0, 0.0))
    ground = {"corners": ((0.0, 0.95), (0.9, 0.95), (0.6, 0.5), (0.4, 0.5)), "width_m": 5.0, "length_m": 9.0}
    with pytest.raises(ValidationError, match=r"expected ground\.corners less than 80° from the middle"):
        CameraConfig(name="gate", source="device:0", lens=wide, ground=ground)


@given(
    st.sampled_from([(1, 1), (65_535, 1), (1, 65_535), (7680, 4320)]),
    st.floats(380.0, 1e6),
    st.sampled_from([0.0, 0.01, 4.0]),
)
def test_every_lens_that_is_accepted_fits_frames_of_every_size(
    size: tuple[int, int], focal: float, zoom: float
) -> None:
    try:
        found = config(fx=focal, fy=focal, zoom=zoom)
    except ValidationError:
        assume(False)
    lens = found.lens(*size)
    assert decode(Lens, encode(lens)) == lens
