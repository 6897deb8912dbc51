"""Tests of the picture checks: complete, truncated, wrongly declared and invalid pictures."""

from __future__ import annotations

import contextlib

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.exceptions import CutShort, FrameError, TooLarge, TooManyScans, Undecodable, WrongSize
from stream.prepare import picture

SIZE = (64, 48)
ENCODINGS = ["jpeg", "webp"]


def encoded(encoding: str, size: tuple[int, int] = SIZE, **options: int) -> bytes:
    ramp = np.linspace(0, 255, size[0] * size[1] * 3).reshape(size[1], size[0], 3).astype(np.uint8)
    flags = [n for pair in ((getattr(cv2, name), value) for name, value in options.items()) for n in pair]
    return cv2.imencode(f".{encoding}", ramp, flags)[1].tobytes()


VARIANTS = [
    ("jpeg", encoded("jpeg")),
    ("jpeg", encoded("jpeg", IMWRITE_JPEG_PROGRESSIVE=1)),
    ("jpeg", encoded("jpeg", IMWRITE_JPEG_RST_INTERVAL=2)),
    ("jpeg", encoded("jpeg") + bytes(16)),
    ("webp", encoded("webp", IMWRITE_WEBP_QUALITY=80)),
    ("webp", encoded("webp", IMWRITE_WEBP_QUALITY=101)),  # lossless: another container
]


@pytest.mark.parametrize(("encoding", "data"), VARIANTS)
def test_a_valid_picture_passes_the_picture_check(encoding: str, data: bytes) -> None:
    picture.check(data, encoding, SIZE)
    image = picture.pixels(data, encoding, SIZE)
    assert (image.shape, image.dtype) == ((SIZE[1], SIZE[0], 3), np.uint8)


@pytest.mark.parametrize(("encoding", "data"), VARIANTS)
def test_a_picture_of_another_size_than_declared_raises_wrong_size(encoding: str, data: bytes) -> None:
    with pytest.raises(WrongSize) as caught:
        picture.check(data, encoding, (SIZE[0] + 1, SIZE[1]))
    assert caught.value.found == SIZE


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_a_truncated_picture_raises_cut_short(encoding: str, share: float) -> None:
    rng = np.random.default_rng(1)
    noise = rng.integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
    data = cv2.imencode(f".{encoding}", noise)[1].tobytes()
    with pytest.raises(CutShort):
        picture.check(data[: int(len(data) * share)], encoding, SIZE)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("data", [b"", b"\xff\xd8", b"\xff\xd8\xff\xd9", b"no picture at all" * 10, bytes(1000)])
def test_bytes_that_are_no_picture_raise_undecodable(encoding: str, data: bytes) -> None:
    with pytest.raises(Undecodable):
        picture.check(data, encoding, SIZE)


def test_a_picture_in_another_encoding_than_declared_raises_undecodable() -> None:
    with pytest.raises(Undecodable):
        picture.check(encoded("webp"), "jpeg", SIZE)


def test_a_small_picture_that_claims_gigabytes_of_pixels_raises_too_large() -> None:
    data = bytearray(encoded("jpeg"))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = (60_000).to_bytes(2, "big") * 2
    with pytest.raises(TooLarge):
        picture.check(bytes(data), "jpeg", (60_000, 60_000))


@pytest.mark.parametrize("shift", [0, 1])
def test_a_small_jpeg_with_too_many_scans_raises_too_many_scans(shift: int) -> None:
    data = encoded("jpeg", IMWRITE_JPEG_PROGRESSIVE=1)
    last = data[data.rindex(b"\xff\xda") : -2] + bytes(shift)
    often = data[:-2] + last * picture.MAX_SCANS + data[-2:]
    with pytest.raises(TooManyScans) as caught:
        picture.check(often, "jpeg", SIZE)
    assert caught.value.scans == often.count(b"\xff\xda")


def test_damage_inside_a_picture_is_detected_when_the_picture_is_decoded() -> None:
    data = encoded("jpeg")
    scan = data.index(b"\xff\xda")
    broken = data[: scan + 2] + b"\xff\xd9"  # a header, no scan
    picture.check(broken, "jpeg", SIZE)
    with pytest.raises(Undecodable):
        picture.pixels(broken, "jpeg", SIZE)


def test_the_orientation_tag_of_a_picture_is_ignored() -> None:
    data = encoded("jpeg")
    exif = b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00" + bytes(4)
    tagged = data[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + data[2:]
    picture.check(tagged, "jpeg", SIZE)
    assert picture.pixels(tagged, "jpeg", SIZE).shape == (SIZE[1], SIZE[0], 3)


@given(st.sampled_from(VARIANTS), st.data())
def test_pictures_with_damaged_bytes_raise_only_frame_errors(variant: tuple[str, bytes], data: st.DataObject) -> None:
    encoding, good = variant
    broken = bytearray(good)
    for _ in range(data.draw(st.integers(0, 4))):
        broken[data.draw(st.integers(0, 40))] = data.draw(st.integers(0, 255))
    cut = bytes(broken[: data.draw(st.integers(0, len(broken)))])
    with contextlib.suppress(FrameError):
        picture.check(cut, encoding, SIZE)
