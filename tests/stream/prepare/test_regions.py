"""Tests of crop windows and their layout in the input of a model."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ingest.contract.records import Box, Canvas, padded_rows
from ingest.picture import draw
from ingest.site import PipelineConfig
from stream.prepare.regions import MERGE_SHARE, CropWindow, merged, windows

SIZE = (640, 360)
WHOLE = Box(0, 0, 640, 360)


def pipeline(**values: object) -> PipelineConfig:
    return PipelineConfig(**{"name": "p", "model": "m", "width": 64, "height": 64, **values})


def model_input(config: PipelineConfig, image: np.ndarray, window: CropWindow, pad: int = 0) -> np.ndarray:
    """Return the input of the model: the crop drawn by prepare, padded to a row by the engine node."""
    picture = draw(image, window, config.colour)
    assert picture.flags.c_contiguous
    return padded_rows(Canvas(config.height, config.width, 3), pad, [window.region.inner], [picture])[0]


MOVING = pipeline(regions="motion", region_margin=0.25)
coordinates = st.floats(-50, 700, allow_nan=False)
anything = st.floats(allow_nan=True, allow_infinity=True)
boxes = st.builds(Box, coordinates, coordinates, coordinates, coordinates)
wild = st.builds(Box, anything, anything, anything, anything)


@pytest.mark.parametrize(
    ("config", "motion"),
    [
        (pipeline(), None),
        (pipeline(), (Box(1, 1, 9, 9),)),  # the pipeline does not use motion
        (MOVING, None),  # the agent sent no motion
        (MOVING, (Box(math.nan, 0, 9, 9), Box(5, 5, 5, 9), Box(900, 0, 950, 50))),  # no usable box
    ],
)
def test_without_usable_motion_boxes_the_region_is_the_full_frame(
    config: PipelineConfig, motion: tuple[Box, ...] | None
) -> None:
    (window,) = windows(config, SIZE, motion, 8)
    assert window.region.box == WHOLE
    assert (window.left, window.top, window.right, window.bottom) == (0, 0, 640, 360)


def test_a_crop_window_adds_a_margin_to_the_motion_box_but_its_region_stores_the_box_without_it() -> None:
    (window,) = windows(MOVING, SIZE, (Box(100, 100, 140, 180),), 8)
    assert window.region.box == Box(100, 100, 140, 180)
    assert (window.left, window.top, window.right, window.bottom) == (90, 80, 150, 200)


def test_a_crop_window_is_clipped_to_the_frame() -> None:
    (window,) = windows(MOVING, SIZE, (Box(-20, 300, 100, 400),), 8)
    assert window.region.box == Box(0, 300, 100, 360)
    assert (window.left, window.bottom) == (0, 360)


def test_the_largest_regions_of_a_frame_are_kept_when_there_are_too_many() -> None:
    motion = tuple(Box(50 * n, 0, 50 * n + 5 + n, 10) for n in range(10))
    found = windows(MOVING, SIZE, motion, 3)
    assert [w.region.box for w in found] == [motion[9], motion[8], motion[7]]


@pytest.mark.timeout(60)
def test_stationary_objects_are_cropped_after_moving_ones_unless_they_begin_to_move() -> None:
    moving, rests, other = Box(0, 0, 40, 40), Box(100, 100, 200, 200), Box(300, 100, 310, 110)
    at_it, next_to_it = Box(180, 100, 240, 200), Box(199, 100, 240, 200)

    def shown(motion: tuple[Box, ...], resting: tuple[Box, ...], most: int = 9) -> list[Box]:
        return [window.region.box for window in windows(MOVING, SIZE, motion, most, resting)]

    assert shown((moving,), (rests, other)) == [moving, rests, other]
    assert shown((moving,), (rests, other), most=2) == [moving, rests]
    assert shown((), (other, rests)) == [other, rests]
    assert shown((at_it,), (rests,)) == [at_it]
    assert shown((next_to_it,), (rests,)) == [next_to_it, rests]
    assert [window.region.box for window in windows(pipeline(), SIZE, (), 9, (rests,))] == [WHOLE]


def test_the_largest_of_100_000_motion_boxes_become_regions() -> None:
    dust = tuple(Box(n % 400, n // 400, n % 400 + 1, n // 400 + 1) for n in range(100_000))
    large = Box(500, 100, 600, 200)
    first, *rest = windows(MOVING, SIZE, (*dust, large), 8)
    assert first.region.box == large
    assert len(rest) == 7


def test_motion_boxes_that_overlap_mostly_are_merged() -> None:
    assert merged([Box(0, 0, 100, 100), Box(50, 50, 110, 110)]) == [Box(0, 0, 110, 110)]
    assert len(merged([Box(0, 0, 100, 100), Box(90, 0, 190, 100)])) == 2


@given(st.lists(boxes, max_size=12))
def test_merged_motion_boxes_cover_all_boxes_and_do_not_overlap_mostly(given_boxes: list[Box]) -> None:
    real = [b for b in given_boxes if b.width >= 1 and b.height >= 1]
    result = merged(real)
    for box in real:
        assert any(
            r.left <= box.left and r.top <= box.top and r.right >= box.right and r.bottom >= box.bottom
            for r in result
        )
    for i, a in enumerate(result):
        for b in result[:i]:
            shared = max(0, min(a.right, b.right) - max(a.left, b.left)) * max(
                0, min(a.bottom, b.bottom) - max(a.top, b.top)
            )
            assert shared < MERGE_SHARE * min(a.width * a.height, b.width * b.height) + 1e-6


@given(
    st.lists(st.one_of(boxes, wild), max_size=8),
    st.sampled_from(["stretch", "letterbox", "crop"]),
    st.integers(1, 200),
    st.integers(1, 200),
    st.integers(1, 5),
)
def test_any_motion_boxes_from_an_agent_give_regions_that_can_be_cropped(
    motion: list[Box], fit: str, width: int, height: int, most: int
) -> None:
    config = pipeline(regions="motion", fit=fit, width=width, height=height)
    image = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    found = windows(config, SIZE, motion, most)
    assert 1 <= len(found) <= most
    for window in found:
        model_input(config, image, window)
        assert Canvas(height, width, 3).holds(window.region.inner)
        box = window.region.box
        if fit != "crop":
            assert box.left >= window.left
            assert box.bottom <= window.bottom
        assert 0 <= window.left < window.right <= SIZE[0]
        assert 0 <= window.top < window.bottom <= SIZE[1]


@given(boxes, st.sampled_from(["stretch", "letterbox", "crop"]))
def test_the_fit_of_a_region_maps_the_model_input_back_to_the_crop_window(box: Box, fit: str) -> None:
    config = pipeline(regions="motion", fit=fit, width=96, height=64)
    for window in windows(config, SIZE, (box,), 1):
        back = window.region.fit.to_frame(Box(*map(float, window.region.inner)))
        assert back == pytest.approx((window.left, window.top, window.right, window.bottom), abs=1e-6)


def drawn(
    config: PipelineConfig, image: np.ndarray, motion: tuple[Box, ...] | None = None, pad: int = 114
) -> np.ndarray:
    window: CropWindow = windows(config, (image.shape[1], image.shape[0]), motion, 1)[0]
    return model_input(config, image, window, pad)


def test_letterbox_fit_keeps_the_aspect_ratio_and_pads_the_region() -> None:
    row = drawn(pipeline(fit="letterbox", width=416, height=416), np.full((360, 640, 3), 200, np.uint8))
    assert (row[:91] == 114).all()
    assert (row[91:325] == 200).all()
    assert (row[325:] == 114).all()


def test_a_tall_picture_is_padded_left_and_right() -> None:
    row = drawn(pipeline(fit="letterbox", width=100, height=100), np.full((200, 100, 3), 9, np.uint8), pad=1)
    assert (row[:, 25:75] == 9).all()
    assert (row[:, :25] == 1).all()
    assert (row[:, 75:] == 1).all()


def test_stretch_fit_fills_the_whole_model_input() -> None:
    assert (drawn(pipeline(), np.full((360, 640, 3), 200, np.uint8)) == 200).all()


def test_crop_fit_cuts_the_longer_side_of_a_frame_without_distortion() -> None:
    image = np.zeros((360, 640, 3), np.uint8)
    image[:, 140:500] = 200
    assert (drawn(pipeline(fit="crop"), image) == 200).all()
    (window,) = windows(pipeline(fit="crop", width=32, height=64), SIZE, None, 1)
    assert (window.left, window.top, window.right, window.bottom) == (230, 0, 410, 360)


def test_crop_fit_widens_a_region_to_the_shape_of_the_model_input_where_the_frame_has_room() -> None:
    config = pipeline(fit="crop", regions="motion", region_margin=0.0)
    (window,) = windows(config, SIZE, (Box(0, 100, 20, 180),), 1)
    assert window.region.box == Box(0, 100, 20, 180)
    assert (window.left, window.top, window.right, window.bottom) == (0, 100, 80, 180)


@pytest.mark.parametrize("fit", ["stretch", "letterbox", "crop"])
@pytest.mark.parametrize("shape", [(360, 640), (200, 100)])
def test_a_crop_has_the_colour_order_of_its_pipeline(fit: str, shape: tuple[int, int]) -> None:
    image = np.zeros((*shape, 3), np.uint8)
    image[..., 0] = 250  # blue
    middle = (32, 32)
    assert drawn(pipeline(fit=fit), image)[middle].tolist() == [250, 0, 0]
    assert drawn(pipeline(fit=fit, colour="rgb"), image)[middle].tolist() == [0, 0, 250]


def test_a_crop_contains_only_pixels_of_its_window() -> None:
    image = np.zeros((360, 640, 3), np.uint8)
    image[100:200, 300:400] = 250
    config = pipeline(regions="motion", region_margin=0.0)
    assert (drawn(config, image, (Box(300, 100, 400, 200),)) == 250).all()


@given(
    st.builds(Box, coordinates, coordinates, coordinates, coordinates),
    st.sampled_from(["stretch", "letterbox", "crop"]),
)
@example(Box(0, 0, 7680, 4320), "letterbox")
def test_the_crop_window_can_be_computed_from_a_region_and_the_frame_size(box: Box, fit: str) -> None:
    config = MOVING.model_copy(update={"fit": fit, "width": 13, "height": 7})
    size = (7680, 4320)
    for window in windows(config, size, (box,), 8):
        assert CropWindow.of(window.region, size) == window
