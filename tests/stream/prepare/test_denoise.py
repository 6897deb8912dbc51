"""Tests of the denoiser cache and its memory bound."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from ingest.contract.records import Frame
from ingest.kafka.log import LogRecord
from stream.prepare import denoise
from stream.prepare.decode import DeliveredFrame
from stream.prepare.denoise import CHECK_FRAMES, CHECK_NS, DenoiseKind, DenoiserCache, Image

RNG = np.random.default_rng(3)
SIDE = 64
NOISY_BYTES = SIDE * SIDE * 3 + SIDE * SIDE // 4 + 1024


def delivered_frame(
    camera: str, *, noisy: bool = True, side: int = SIDE, lane: str = "live", captured_ns: int = 0
) -> DeliveredFrame:
    level = RNG.normal(128, 30, (side, side, 3)) if noisy else np.full((side, side, 3), 90.0)
    image = np.clip(level, 0, 255).astype(np.uint8)
    jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    frame = Frame(camera=camera, epoch=1, seq=0, captured_ns=captured_ns, width=side, height=side, image=jpeg)
    return DeliveredFrame(frame, LogRecord("frames", 0, 0, None, b""), lane, "")


def remembers(cache: DenoiserCache, camera: str) -> bool:
    """Return whether earlier frames of a camera influence its next frame.

    The call makes that camera the most recently used one.
    """
    frame = delivered_frame(camera)
    return not np.array_equal(filtered(cache, frame), filtered(DenoiserCache(), frame))


def filtered(cache: DenoiserCache, frame: DeliveredFrame) -> Image:
    found = cache.denoise(frame, "auto")
    assert found is not None
    return found


def test_the_memory_of_the_denoisers_of_noisy_cameras_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(denoise, "MAX_DENOISER_BYTES", 5 * NOISY_BYTES)
    cache = DenoiserCache()
    for number in range(20):
        cache.denoise(delivered_frame(f"camera-{number}"), "auto")
    assert cache.held_bytes == 5 * NOISY_BYTES


def test_the_least_recently_used_denoiser_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(denoise, "MAX_DENOISER_BYTES", 2 * NOISY_BYTES)
    cache = DenoiserCache()
    for camera in ("gate", "yard", "gate", "dock"):
        cache.denoise(delivered_frame(camera), "auto")
    assert remembers(cache, "gate")
    assert not remembers(cache, "yard")


def test_a_denoiser_above_the_memory_limit_is_kept_while_it_is_the_only_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(denoise, "MAX_DENOISER_BYTES", 100)
    cache = DenoiserCache()
    cache.denoise(delivered_frame("gate"), "auto")
    assert remembers(cache, "gate")


@pytest.mark.parametrize("kind", ["none", "median", "bilateral"])
def test_a_denoiser_that_keeps_no_frame_takes_no_memory(kind: DenoiseKind) -> None:
    cache = DenoiserCache()
    cache.denoise(delivered_frame("gate"), kind)
    assert cache.held_bytes == 0


def test_pipelines_with_different_time_budgets_have_separate_denoisers() -> None:
    cache, frame = DenoiserCache(), delivered_frame("gate")
    assert cache.denoise(frame, "auto", 20.0) is not None
    assert cache.denoise(frame, "auto", 1e-6) is None
    assert cache.held_bytes == NOISY_BYTES + SIDE * SIDE // 4 + 1024


def test_denoiser_memory_shrinks_when_the_frames_lose_their_noise_or_become_smaller() -> None:
    cache = DenoiserCache()
    cache.denoise(delivered_frame("gate"), "auto")
    cache.denoise(delivered_frame("gate", noisy=False), "auto")
    assert cache.held_bytes == SIDE * SIDE // 4 + 1024
    cache.denoise(delivered_frame("gate", side=16, captured_ns=CHECK_NS), "auto")
    cache.denoise(delivered_frame("gate", side=16, captured_ns=CHECK_NS), "auto")
    assert cache.held_bytes == 16 * 16 * 3 + 16 * 16 // 4 + 1024


def test_each_lane_of_a_camera_has_a_separate_denoiser() -> None:
    cache = DenoiserCache()
    cache.denoise(delivered_frame("gate"), "auto")
    cache.denoise(delivered_frame("gate", lane="late"), "auto")
    assert cache.held_bytes == 2 * NOISY_BYTES


def decoded_of(cache: DenoiserCache, frames: list[DeliveredFrame]) -> list[int]:
    """Return the indices of the frames that are decoded for the filter ``auto``."""
    for frame in frames:
        cache.denoise(frame, "auto")
    return [n for n, frame in enumerate(frames) if frame._image is not None]


def test_every_eighth_frame_of_a_camera_without_noise_is_decoded() -> None:
    frames = [delivered_frame("gate", noisy=False) for _ in range(2 * CHECK_FRAMES + 1)]
    assert decoded_of(DenoiserCache(), frames) == [0, CHECK_FRAMES, 2 * CHECK_FRAMES]


@pytest.mark.parametrize("change_ns", [CHECK_NS, -1])
def test_a_frame_captured_a_second_after_or_before_the_last_decoded_one_is_decoded(change_ns: int) -> None:
    times_ns = CHECK_NS, 2 * CHECK_NS - 1, CHECK_NS + change_ns
    frames = [delivered_frame("gate", noisy=False, captured_ns=captured_ns) for captured_ns in times_ns]
    assert decoded_of(DenoiserCache(), frames) == [0, 2]


def test_every_frame_of_a_noisy_camera_is_decoded_and_filtered() -> None:
    cache = DenoiserCache()
    frames = [delivered_frame("gate") for _ in range(4)]
    assert all(cache.denoise(frame, "auto") is not None for frame in frames)


def test_filtering_begins_with_the_second_consecutive_noisy_frame() -> None:
    cache = DenoiserCache()
    quiet = [delivered_frame("gate", noisy=False) for _ in range(CHECK_FRAMES)]
    assert decoded_of(cache, quiet) == [0]
    found = [cache.denoise(delivered_frame("gate"), "auto") for _ in range(3)]
    assert [image is not None for image in found] == [False, True, True]


def test_without_a_filter_no_frame_is_decoded() -> None:
    frame = delivered_frame("gate")
    assert DenoiserCache().denoise(frame, "none") is None
    assert frame._image is None
