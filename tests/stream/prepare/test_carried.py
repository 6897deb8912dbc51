"""Tests of frames that a batch carries as the agent encoded them, in place of pixels."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from ingest import picture as encoded_picture
from ingest.contract.records import Box
from ingest.site import SecondModelConfig
from stream.prepare import stage as stage_module
from tests.modelinput import model_input
from tests.stream.prepare.bench import FULL, HEIGHT, MOTION, WIDTH, PrepareBench, frame, picture, pipeline

THEN = (SecondModelConfig(name="type", model="vehicle"),)
SMALL = pipeline("small", width=8, height=8, max_items=4)
NOISE = np.random.default_rng(5).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
NOISY = cv2.imencode(".jpg", NOISE, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


async def test_a_batch_carries_the_frame_as_the_agent_encoded_it_if_that_is_smaller_than_the_pixels() -> None:
    bench = PrepareBench.of(FULL, SMALL)
    pictures = [picture(80), picture(90)]
    for seq, image in enumerate(pictures):
        await bench.give(frame(seq, image=image))
    found = {batch.pipeline: batch for _, batch in await bench.batches()}
    assert (found["full"].pixels, found["full"].attached_frames()) == (b"", pictures)
    assert (len(found["small"].pixels), found["small"].attached_frames()) == (2 * 8 * 8 * 3, [b"", b""])
    assert {item.cropped for item in found["full"].items} == {False}
    assert {item.cropped for item in found["small"].items} == {True}


async def test_a_batch_for_second_models_has_the_encoded_frame_and_no_pixels() -> None:
    bench = PrepareBench.of(SMALL.model_copy(update={"then": THEN}))
    await bench.give(frame(0, image=NOISY))
    ((_, batch),) = await bench.batches()
    assert (batch.pixels, batch.attached_frames()) == (b"", [NOISY])
    assert [item.attached and item.attached.encoding for item in batch.items] == ["jpeg"]


@pytest.mark.parametrize("then", [(), THEN])
async def test_a_batch_has_the_pixels_of_a_filtered_frame_and_its_encoded_original_only_for_second_models(
    then: tuple[Any, ...],
) -> None:
    bench = PrepareBench.of(pipeline("full", denoise="median", width=WIDTH, height=HEIGHT, then=then))
    await bench.give(frame(0, image=NOISY))
    ((_, batch),) = await bench.batches()
    assert batch.items[0].cropped
    assert batch.attached_frames() == [NOISY if then else b""]
    clean = cv2.medianBlur(cv2.imdecode(np.frombuffer(NOISY, np.uint8), cv2.IMREAD_COLOR), 3)
    assert np.array_equal(model_input(batch)[0], clean)


@pytest.mark.parametrize("colour", ["bgr", "rgb"])
@pytest.mark.parametrize("fit", ["stretch", "letterbox", "crop"])
@pytest.mark.parametrize("motion", [None, (Box(3.0, 5.0, 21.0, 40.0), Box(30.0, 8.0, 60.0, 40.0))])
@pytest.mark.parametrize("side", [6, 12, 16, 40])
async def test_the_model_input_is_equal_whether_a_batch_has_pixels_or_the_encoded_frame(
    side: int, motion: tuple[Box, ...] | None, fit: str, colour: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = []
    for carried in (True, False):
        monkeypatch.setattr(stage_module, "_is_worth_carrying", lambda *_, carried=carried: carried)
        bench = PrepareBench.of(
            MOTION.model_copy(update={"width": side, "height": side, "fit": fit, "colour": colour})
        )
        await bench.give(frame(0, image=NOISY, motion=motion))
        ((_, batch),) = await bench.batches()
        assert batch.items[0].cropped is not carried
        inputs.append(model_input(batch))
    assert np.array_equal(*inputs)


async def test_prepare_does_not_decode_a_frame_that_it_puts_into_a_batch_as_encoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(encoded_picture, "pixels", lambda *_: pytest.fail("the frame was decoded"))
    bench = PrepareBench.of(FULL)
    await bench.give(frame(0, motion=(Box(3.0, 5.0, 21.0, 40.0),)))
    assert [item.cropped for item in await bench.items()] == [False]


async def test_a_batch_item_of_a_frame_without_motion_has_no_encoded_frame() -> None:
    bench = PrepareBench.of(pipeline("cascade", then=THEN, regions="motion"))
    await bench.give(frame(0, motion=()))
    ((_, batch),) = await bench.batches()
    assert (batch.items[0].outcome, batch.items[0].attached, batch.frames) == ("empty", None, b"")


async def test_an_encoded_frame_too_large_for_a_record_is_replaced_by_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    small = picture(80)
    monkeypatch.setattr(stage_module, "MAX_PIXEL_BYTES", len(small))
    bench = PrepareBench.of(pipeline("cascade", then=THEN, max_items=4))
    for seq, image in enumerate([small, picture(80) + bytes(9)]):
        await bench.give(frame(seq, image=image))
    ((_, batch),) = await bench.batches()
    assert batch.attached_frames() == [small, b""]
    assert [item.cropped for item in batch.items] == [False, True]
