"""Tests of the picture checks: complete, truncated, wrongly declared and invalid pictures."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest import picture
from ingest.contract.crop import CropWindow
from ingest.contract.records import Box, Fit, Inner, Lens, Optics, Region
from ingest.exceptions import CutShort, PictureError, TooLarge, TooManyScans, Undecodable, WrongSize

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
def test_damaged_pictures_raise_only_picture_errors(variant: tuple[str, bytes], data: st.DataObject) -> None:
    encoding, good = variant
    broken = bytearray(good)
    for _ in range(data.draw(st.integers(0, 4))):
        broken[data.draw(st.integers(0, 40))] = data.draw(st.integers(0, 255))
    cut = bytes(broken[: data.draw(st.integers(0, len(broken)))])
    with contextlib.suppress(PictureError):
        picture.check(cut, encoding, SIZE)


def window(left: int, top: int, right: int, bottom: int, inner: tuple[int, int]) -> CropWindow:
    box = Box(left, top, right, bottom)
    return CropWindow(Region(box, Fit(1, 1, 0, 0), Inner(0, 0, *inner)), left, top, right, bottom)


@pytest.mark.parametrize(
    ("found", "reduction"),
    [
        ([window(0, 0, 1920, 1080, (416, 234))], 4),
        ([window(0, 0, 1280, 720, (416, 234))], 2),
        ([window(0, 0, 768, 432, (416, 234))], 1),
        ([window(0, 0, 1920, 1080, (64, 64))], 8),
        ([window(0, 0, 1920, 1080, (416, 416))], 2),  # the height has fewer pixels to spare than the width
        ([window(8, 0, 1920, 1080, (64, 64))], 8),
        ([window(4, 0, 1920, 1080, (64, 64))], 4),
        ([window(1, 0, 1920, 1080, (64, 64))], 1),
        ([window(0, 0, 1919, 1080, (64, 64))], 1),  # an edge inside the frame on an odd pixel
        ([window(0, 0, 1920, 1080, (64, 64)), window(0, 0, 100, 100, (64, 64))], 1),
    ],
)
def test_a_picture_is_downscaled_only_as_far_as_every_region_keeps_the_resolution_of_the_model(
    found: list[CropWindow], reduction: int
) -> None:
    assert picture.reduction_for(found, "jpeg", (1920, 1080)) == reduction
    assert picture.reduction_for(found, "webp", (1920, 1080)) == 1


def test_a_downscaled_picture_includes_the_last_columns_and_rows_of_a_frame_of_odd_size() -> None:
    size = (131, 77)
    whole = window(0, 0, *size, (32, 18))
    assert picture.reduction_for([whole], "jpeg", size) == 4
    image = picture.pixels(encoded("jpeg", size), "jpeg", size, 4)
    assert image.shape == (20, 33, 3)
    assert picture.draw(image, whole, "bgr", reduction=4).shape == (18, 32, 3)


@pytest.mark.parametrize("reduction", [1, 2, 4])
@pytest.mark.parametrize("colour", ["bgr", "rgb"])
def test_a_picture_is_drawn_into_a_part_of_an_array(colour: str, reduction: int) -> None:
    size, part = (64, 48), window(8, 16, 40, 48, (8, 8))
    image = picture.pixels(encoded("jpeg", size), "jpeg", size, reduction)
    slot = np.full((20, 30, 3), 7, np.uint8)
    picture.draw(image, part, colour, reduction=reduction, into=slot[4:12, 5:13])
    assert np.array_equal(slot[4:12, 5:13], picture.draw(image, part, colour, reduction=reduction))
    slot[4:12, 5:13] = 7
    assert (slot == 7).all()


def test_a_crop_of_a_downscaled_picture_is_closer_to_area_averaging_than_one_of_the_full_picture() -> None:
    size = (512, 384)
    noise = np.random.default_rng(2).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    data = cv2.imencode(".jpg", noise, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    full, whole = picture.pixels(data, "jpeg", size), window(0, 0, *size, (64, 48))
    mean = cv2.resize(full, (64, 48), interpolation=cv2.INTER_AREA).astype(int)
    reduced = picture.draw(picture.pixels(data, "jpeg", size, 8), whole, "bgr", reduction=8)
    assert np.abs(reduced - mean).mean() < np.abs(picture.draw(full, whole, "bgr") - mean).mean() / 4


def lens(cx: float = 80.0) -> Lens:
    optics = Optics(model="pinhole", fx=100.0, fy=100.0, cx=cx, cy=45.0, distortion=(-0.3, 0.1, 0.0, 0.0, -0.015))
    return Lens(optics=optics, fx=70.0, fy=70.0, cx=80.0, cy=45.0)


@pytest.mark.parametrize("reduction", [1, 2, 4])
def test_a_point_of_an_undistorted_picture_shows_its_point_of_the_frame(reduction: int) -> None:
    ys, xs = np.mgrid[0 : 360 // reduction, 0 : 640 // reduction]
    image = np.stack([(xs + 0.5) * reduction / 4, (ys + 0.5) * reduction / 4, xs * 0 + 200], axis=-1).astype(np.uint8)
    large = Lens(
        optics=lens().optics.model_copy(update={"fx": 400.0, "fy": 400.0, "cx": 320.0, "cy": 180.0}),
        fx=280.0,
        fy=280.0,
        cx=320.0,
        cy=180.0,
    )
    straight = picture.undistorted(image, large, reduction)
    assert straight.shape == image.shape
    for x, y in [(320, 180), (80, 60), (560, 300)]:
        across, down, shown = straight[y // reduction, x // reduction]
        assert shown == 200
        point = large.distorted(((x // reduction + 0.5) * reduction, (y // reduction + 0.5) * reduction))
        assert (4.0 * across, 4.0 * down) == pytest.approx(point, abs=4.0)


def test_an_undistorted_picture_is_black_where_the_frame_shows_nothing_and_where_its_lens_folds_back() -> None:
    white = np.full((90, 160, 3), 255, np.uint8)
    folding = lens().optics.model_copy(update={"distortion": (-0.3, 0.0, 0.0, 0.0)})
    straight = picture.undistorted(white, Lens(optics=folding, fx=30.0, fy=30.0, cx=80.0, cy=45.0))
    assert straight[45, 80, 0] == 255
    ys, xs = np.nonzero(straight[..., 0])
    assert np.hypot(xs - 79.5, ys - 44.5).max() < 30.0 * 1.06  # the lens folds back at a slope of 1.054


def test_maps_of_undistorted_pictures_are_kept_up_to_a_number_of_bytes() -> None:
    cache = picture.MapCache(max_bytes=3 * 160 * 90 * 6)
    first = cache.get(lens(), (160, 90), 1)
    for n in range(2):
        cache.get(lens(81.0 + n), (160, 90), 1)
    assert cache.get(lens(), (160, 90), 1) is first
    for n in range(5):
        cache.get(lens(90.0 + n), (160, 90), 1)
        assert cache.held_bytes <= 3 * 160 * 90 * 6
    assert cache.get(lens(), (160, 90), 1) is not first


def test_threads_that_undistort_with_one_lens_share_its_map() -> None:
    cache = picture.MapCache()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: cache.get(lens(), (160, 90), 1), range(64)))
    assert cache.held_bytes == 160 * 90 * 6
