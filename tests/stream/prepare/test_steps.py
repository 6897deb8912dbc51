"""Tests of the corrections of dark and foggy frames."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ingest.contract.records import Pixels
from ingest.site import PipelineConfig
from ingest.site.pipeline import LightStep
from stream.prepare import stage as stage_module
from stream.prepare.steps import DARK_MEAN, FOG_SPREAD, REDUCTION, Change, changes
from tests.modelinput import model_input
from tests.stream.prepare.bench import HEIGHT, WIDTH, PrepareBench, frame, pipeline

ALL: tuple[LightStep, ...] = ("low-light", "fog")


def scene(low: float, high: float) -> Pixels:
    """Return a picture with a gradient of the luma from ``low`` to ``high``."""
    return np.tile(np.linspace(low, high, WIDTH), (3, HEIGHT, 1)).transpose(1, 2, 0).astype(np.uint8)


def corrected(image: Pixels, steps: tuple[LightStep, ...] = ALL) -> Pixels:
    for change in changes(steps, image):
        image = change(image)
    return image


def luma(image: Pixels) -> np.ndarray:
    return cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)


GOOD, DARK, FOGGY = scene(30, 220), scene(0, 30), scene(180, 220)


def test_a_frame_in_good_light_needs_no_enhancement_step() -> None:
    assert changes(ALL, GOOD) == []


def test_a_pipeline_without_enhancement_steps_changes_no_frame() -> None:
    assert [changes((), image) for image in (GOOD, DARK, FOGGY)] == [[], [], []]


def test_the_step_low_light_brightens_a_dark_frame_and_keeps_darker_pixels_darker() -> None:
    result = luma(corrected(DARK, ("low-light",)))
    assert float(result.mean()) > 2 * DARK_MEAN
    assert (np.diff(result[0].astype(int)) >= 0).all()


def test_the_step_fog_widens_the_contrast() -> None:
    texture = cv2.GaussianBlur(np.random.default_rng(3).uniform(0, 255, (240, 320, 3)), (0, 0), 3.0)
    foggy = cv2.normalize(texture, None, 190, 225, cv2.NORM_MINMAX).astype(np.uint8)
    assert luma(corrected(foggy, ("fog",))).std() > 2 * luma(foggy).std()


def test_a_dark_frame_is_not_foggy_once_it_is_brightened() -> None:
    assert len(changes(("fog",), DARK)) == 1
    assert len(changes(ALL, DARK)) == 1


@given(st.integers(0, 254), st.integers(1, 255))
def test_enhancement_steps_change_a_frame_if_and_only_if_it_is_dark_or_lacks_contrast(low: int, rise: int) -> None:
    image = scene(low, min(low + rise, 255))
    grey = luma(image)
    assert bool(changes(("low-light",), image)) == (float(grey.mean()) < DARK_MEAN)
    assert bool(changes(("fog",), image)) == (np.ptp(np.percentile(grey, (2, 98))) < FOG_SPREAD)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 255))
def test_enhancement_steps_return_a_frame_of_equal_size_and_leave_the_input_array_unchanged(
    height: int, width: int, level: int
) -> None:
    image = np.full((height, width, 3), level, np.uint8)
    result = corrected(image)
    assert (result.shape, result.dtype) == (image.shape, np.uint8)
    assert (image == level).all()


@pytest.mark.parametrize("steps", [s for n in range(4) for s in itertools.product(ALL, repeat=n)])
def test_repeated_or_misordered_enhancement_steps_are_refused(steps: tuple[LightStep, ...]) -> None:
    if steps in [(), ("low-light",), ("fog",), ALL]:
        assert pipeline("p", steps=steps).steps == steps
    else:
        with pytest.raises(ValidationError, match="expected each step once, in this order: "):
            pipeline("p", steps=steps)


def test_an_unknown_step_is_refused() -> None:
    with pytest.raises(ValidationError, match="steps"):
        PipelineConfig(name="p", model="m", width=8, height=8, steps=("dehaze",))


def encoded(image: Pixels) -> bytes:
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


async def test_a_batch_has_a_frame_in_good_light_as_encoded_and_a_dark_frame_as_brightened_pixels() -> None:
    bench = PrepareBench.of(pipeline("lit", steps=ALL, width=WIDTH, height=HEIGHT))
    for seq, image in enumerate((GOOD, DARK)):
        await bench.give(frame(seq, image=encoded(image)))
    ((_, batch),) = await bench.batches()
    assert [item.cropped for item in batch.items] == [False, True]
    assert float(luma(model_input(batch)[1]).mean()) > 2 * DARK_MEAN


async def test_the_steps_of_one_pipeline_do_not_change_the_frames_of_another() -> None:
    bench = PrepareBench.of(pipeline("lit", steps=ALL), pipeline("plain"))
    await bench.give(frame(0, image=encoded(DARK)))
    means = {batch.pipeline: float(luma(model_input(batch)[0]).mean()) for _, batch in await bench.batches()}
    assert means["plain"] < DARK_MEAN < means["lit"]


@pytest.mark.parametrize("denoise", ["none", "median"])
@pytest.mark.parametrize("encoding", ["jpeg", "webp"])
async def test_a_downscaled_copy_of_a_frame_determines_whether_the_frame_needs_a_step(
    encoding: str, denoise: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def watched(steps: Sequence[LightStep], small: Pixels) -> list[Change]:
        shapes.append(small.shape)
        return changes(steps, small)

    shapes: list[tuple[int, ...]] = []
    monkeypatch.setattr(stage_module, "changes", watched)
    bench = PrepareBench.of(pipeline("lit", steps=ALL, denoise=denoise, width=WIDTH, height=HEIGHT))
    for seq, image in enumerate((GOOD, DARK)):
        data = cv2.imencode(f".{encoding}", image)[1].tobytes()
        await bench.give(frame(seq, image=data, encoding=encoding))
    ((_, batch),) = await bench.batches()
    assert shapes == [(HEIGHT // REDUCTION, WIDTH // REDUCTION, 3)] * 2
    assert float(luma(model_input(batch)[1]).mean()) > 2 * DARK_MEAN
