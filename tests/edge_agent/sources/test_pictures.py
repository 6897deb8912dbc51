"""Tests of encoded pictures: bytes after the end of a JPEG, damage, and orientation."""

from __future__ import annotations

import struct

import cv2
import numpy as np
import pytest

from edge_agent.exceptions import FrameUnusable
from edge_agent.sources.jpeg import JpegScan
from edge_agent.sources.pictures import PictureDecoder
from edge_agent.sources.source import CapturedFrame, Image


def scene(height: int = 240, width: int = 320) -> Image:
    small = np.random.default_rng(7).integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def jpeg(image: Image, *options: int) -> bytes:
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95, *options])[1].tobytes()


def with_segment(data: bytes, content: bytes) -> bytes:
    """Return a JPEG with an APP1 segment."""
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content + data[2:]


def exif(orientation: int) -> bytes:
    entry = struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0)
    return b"Exif\0\0MM\0*\0\0\0\x08\0\x01" + entry + bytes(4)


def frame(data: bytes) -> CapturedFrame:
    return PictureDecoder().captured(data, 1)


JPEG = jpeg(scene())
PROGRESSIVE = (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
RESTARTS = (cv2.IMWRITE_JPEG_RST_INTERVAL, 4)


@pytest.mark.parametrize(
    "trailer",
    [bytes(9000), b"vendor data" * 1000, jpeg(scene(48, 64)), b"\0\0\0\x18ftypmp42" + bytes(5000)],
    ids=["zeros", "vendor", "second picture", "motion photo"],
)
def test_a_jpeg_with_a_long_trailer_is_usable(trailer: bytes) -> None:
    assert np.array_equal(frame(JPEG + trailer).image, frame(JPEG).image)


@pytest.mark.parametrize("options", [(), PROGRESSIVE, RESTARTS], ids=["baseline", "progressive", "restarts"])
@pytest.mark.parametrize("share", [0.3, 0.5])
def test_a_jpeg_whose_middle_part_is_missing_is_unusable(options: tuple[int, ...], share: float) -> None:
    data = jpeg(scene(), *options)
    at = int(len(data) * share)
    lost = frame(data[:at] + data[at + 3000 :])
    assert frame(data).image.shape == (240, 320, 3)
    for look in (lambda: lost.image, lost.luma):
        with pytest.raises(FrameUnusable, match=r"JPEG picture .* is damaged"):
            look()


@pytest.mark.parametrize("cut", [1, 2, 100, 5000])
def test_a_truncated_jpeg_is_unusable_even_with_a_complete_thumbnail(cut: int) -> None:
    data = with_segment(JPEG, b"Exif\0\0" + jpeg(scene(48, 64)))
    assert frame(data).image.shape == (240, 320, 3)
    with pytest.raises(FrameUnusable, match=r"JPEG picture .* is truncated"):
        _ = frame(data[:-cut]).image


@pytest.mark.parametrize("extra", [b"\0", b"\xff\xff\xff", b"\r\n"], ids=["one zero", "fill bytes", "line end"])
def test_a_jpeg_with_harmless_bytes_before_the_end_marker_is_usable(extra: bytes) -> None:
    assert frame(JPEG[:-2] + extra + JPEG[-2:]).image.shape == (240, 320, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_exif_orientation_of_a_jpeg_is_applied(orientation: int) -> None:
    image = np.zeros((64, 96, 3), np.uint8)
    image[:32, :32] = 255
    data = with_segment(jpeg(image), exif(orientation))
    found = frame(data)
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert np.array_equal(found.image, expected)
    assert found.luma().shape == expected.shape[:2]


def test_grey_jpeg_and_png_are_decoded() -> None:
    for data in (jpeg(scene()[:, :, 0]), cv2.imencode(".png", scene())[1].tobytes()):
        found = frame(data)
        assert found.luma().ndim == 2
        assert found.image.shape == (240, 320, 3)


def test_the_end_of_a_jpeg_is_found_however_the_data_is_split() -> None:
    data = with_segment(jpeg(scene(48, 64), *RESTARTS), b"Exif\0\0" + jpeg(scene(16, 16)))
    scan = JpegScan()
    assert [scan.end(data[:size]) for size in range(3, len(data))] == [None] * (len(data) - 3)
    assert scan.end(data + b"more") == len(data)
