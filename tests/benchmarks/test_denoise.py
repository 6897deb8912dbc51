"""Tests of the figures of the filter benchmark."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.denoise import (
    DAMAGES,
    LENSES,
    LIGHTS,
    bent,
    gains,
    lens_of,
    lens_table,
    light_table,
    matched,
    ssim,
    straight_view,
)
from ingest.contract.records import Box, Detection
from ingest.picture import undistorted

IMAGE = np.random.default_rng(3).integers(0, 256, (40, 60, 3), dtype=np.uint8)


def seen(*boxes: Box, score: float = 0.9) -> tuple[Detection, ...]:
    return tuple(Detection(box=box, label="car", class_id=0, score=score) for box in boxes)


def test_the_similarity_of_equal_pictures_is_1_and_falls_with_noise() -> None:
    noisy = np.clip(IMAGE + np.random.default_rng(4).normal(0, 20, IMAGE.shape), 0, 255).astype(np.uint8)
    assert ssim(IMAGE, IMAGE) == pytest.approx(1.0)
    assert ssim(noisy, IMAGE) < 0.99


def test_each_box_of_the_clean_picture_is_matched_once_and_boxes_of_low_score_are_ignored() -> None:
    box, other = Box(0, 0, 10, 10), Box(50, 50, 60, 60)
    assert matched(seen(box, box), seen(box, other)) == (2, 4)
    assert matched(seen(box, score=0.1), seen(box)) == (0, 1)


def test_the_gain_of_a_filter_is_its_difference_from_the_first_filter_in_the_list() -> None:
    plain, better = {"psnr_db": 30.0, "ssim": 0.5, "f1": 0.5}, {"psnr_db": 33.0, "ssim": 0.75, "f1": 0.75}
    found = gains({"all": {"no step": plain, "both": better}})
    assert found["all"]["no step"]["psnr_gain"] == 0.0
    assert [found["all"]["both"][key] for key in ("psnr_gain", "ssim_gain", "f1_gain")] == [3.0, 0.25, 0.25]
    assert "| fog 0.3 | 0.50 | 0.75 |" in light_table({"fog 0.3": found})


@pytest.mark.parametrize("name", [*DAMAGES, *LIGHTS])
def test_a_damaged_test_picture_keeps_its_size(name: str) -> None:
    damaged = {**DAMAGES, **LIGHTS}[name](IMAGE, np.random.default_rng(5))
    assert (damaged.shape, damaged.dtype) == (IMAGE.shape, np.uint8)


@pytest.mark.parametrize("name", LENSES)
def test_a_picture_that_a_lens_bends_is_straight_again_after_the_step(name: str) -> None:
    image = np.full((90, 160, 3), 30, np.uint8)
    image[30:60, 50:110] = 200
    lens = lens_of(name, 160, 90)
    scene = straight_view(lens, 160, 90)
    frame = bent(image, scene)
    again = undistorted(frame, scene)
    assert np.abs(again[20:70, 40:120].astype(int) - image[20:70, 40:120]).mean() < 4.0
    assert np.abs(frame[20:70, 40:120].astype(int) - image[20:70, 40:120]).mean() > 5.0


def test_the_table_of_lenses_has_the_f1_without_and_with_the_step() -> None:
    assert "| 92° | 0.50 | 0.75 |" in lens_table({"92°": {"no step": 0.5, "`distortion`": 0.75, "ms": 1.0}})
