"""What is remembered of cameras stays within its bytes."""

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


def read_frame(camera: str, *, noisy: bool = True, side: int = SIDE, lane: str = "live") -> DeliveredFrame:
    level = RNG.normal(128, 30, (side, side, 3)) if noisy else np.full((side, side, 3), 90.0)
    image = np.clip(level, 0, 255).astype(np.uint8)
    jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    frame = Frame(camera=camera, epoch=1, seq=0, captured_ns=0, width=side, height=side, image=jpeg)
    return DeliveredFrame(frame, LogRecord("frames", 0, 0, None, b""), lane, "")


def remembers(known: DenoiserCache, camera: str) -> bool:
    """Tell whether a camera's past has a part in what comes out; it is then no longer what was remembered last."""
    frame = read_frame(camera)
    return not np.array_equal(known.denoise(frame, "auto"), DenoiserCache().denoise(frame, "auto"))


def test_the_bytes_of_noisy_cameras_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(denoise, "MAX_DENOISER_BYTES", 5 * NOISY_BYTES)
    known = DenoiserCache()
    for number in range(20):
        known.denoise(read_frame(f"camera-{number}"), "auto")
    assert known.held_bytes == 5 * NOISY_BYTES


def test_the_one_used_longest_ago_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(denoise, "MAX_DENOISER_BYTES", 2 * NOISY_BYTES)
    known = DenoiserCache()
    for camera in ("gate", "yard", "gate", "dock"):
        known.denoise(read_frame(camera), "auto")
    assert remembers(known, "gate")
    assert not remembers(known, "yard")


def test_one_that_is_larger_than_all_may_be_is_kept_while_it_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(denoise, "MAX_DENOISER_BYTES", 100)
    known = DenoiserCache()
    known.denoise(read_frame("gate"), "auto")
    assert remembers(known, "gate")


@pytest.mark.parametrize("kind", ["none", "median"])
def test_what_remembers_nothing_takes_nothing(kind: DenoiseKind) -> None:
    known = DenoiserCache()
    known.denoise(read_frame("gate"), kind)
    assert known.held_bytes == 0


def test_a_camera_that_becomes_clean_or_small_gives_its_bytes_back() -> None:
    known = DenoiserCache()
    known.denoise(read_frame("gate"), "auto")
    known.denoise(read_frame("gate", noisy=False), "auto")
    assert known.held_bytes == SIDE * SIDE // 4 + 1024
    known.denoise(read_frame("gate", side=16), "auto")
    assert known.held_bytes == 16 * 16 * 3 + 16 * 16 // 4 + 1024


def test_lanes_and_cameras_do_not_share_a_past() -> None:
    known = DenoiserCache()
    known.denoise(read_frame("gate"), "auto")
    known.denoise(read_frame("gate", lane="late"), "auto")
    assert known.held_bytes == 2 * NOISY_BYTES
