"""Tests of the denoiser cache and its memory bound."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from ingest.contract.records import Frame
from ingest.kafka.log import LogRecord
from stream.prepare import denoise
from stream.prepare.decode import DeliveredFrame
from stream.prepare.denoise import DenoiseKind, DenoiserCache

RNG = np.random.default_rng(3)
SIDE = 64
NOISY_BYTES = SIDE * SIDE * 3 + SIDE * SIDE // 4 + 1024


def delivered_frame(camera: str, *, noisy: bool = True, side: int = SIDE, lane: str = "live") -> DeliveredFrame:
    level = RNG.normal(128, 30, (side, side, 3)) if noisy else np.full((side, side, 3), 90.0)
    image = np.clip(level, 0, 255).astype(np.uint8)
    jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    frame = Frame(camera=camera, epoch=1, seq=0, captured_ns=0, width=side, height=side, image=jpeg)
    return DeliveredFrame(frame, LogRecord("frames", 0, 0, None, b""), lane, "")


def remembers(cache: DenoiserCache, camera: str) -> bool:
    """Return whether earlier frames of a camera influence its next frame.

    The call makes that camera the most recently used one.
    """
    frame = delivered_frame(camera)
    return not np.array_equal(cache.denoise(frame, "auto"), DenoiserCache().denoise(frame, "auto"))


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


@pytest.mark.parametrize("kind", ["none", "median"])
def test_a_denoiser_that_keeps_no_frame_takes_no_memory(kind: DenoiseKind) -> None:
    cache = DenoiserCache()
    cache.denoise(delivered_frame("gate"), kind)
    assert cache.held_bytes == 0


def test_denoiser_memory_shrinks_when_a_camera_becomes_clean_or_small() -> None:
    cache = DenoiserCache()
    cache.denoise(delivered_frame("gate"), "auto")
    cache.denoise(delivered_frame("gate", noisy=False), "auto")
    assert cache.held_bytes == SIDE * SIDE // 4 + 1024
    cache.denoise(delivered_frame("gate", side=16), "auto")
    assert cache.held_bytes == 16 * 16 * 3 + 16 * 16 // 4 + 1024


def test_denoisers_of_different_lanes_and_cameras_share_no_frames() -> None:
    cache = DenoiserCache()
    cache.denoise(delivered_frame("gate"), "auto")
    cache.denoise(delivered_frame("gate", lane="late"), "auto")
    assert cache.held_bytes == 2 * NOISY_BYTES
