"""Tests of the pictures of an optimisation: from the log, in halves, spread."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from deploy.optimise.pictures import PictureSample, PreparedPictures, from_log
from engines.repository.manifest import Manifest
from ingest.contract.codec import encode
from ingest.contract.records import Box, Frame
from ingest.contract.topics import FRAMES
from ingest.exceptions import ConfigError
from ingest.kafka.log import Outgoing
from ingest.kafka.memorylog import MemoryLog

WIDTH, HEIGHT = 64, 48
SIZE = 16


def manifest(decoder: str = "softmax") -> Manifest:
    spec: Any = {"name": "pixels", "width": SIZE, "height": SIZE, "colour": "rgb"}
    return Manifest(
        name="m", version=1, file="m.onnx", sha256="0" * 64, decoder=decoder, labels=("a", "b"), input=spec
    )


def frame(seq: int, motion: tuple[Box, ...] | None) -> Frame:
    """Return a frame whose left half is blue and whose right half is red."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[:, : WIDTH // 2, 0] = image[:, WIDTH // 2 :, 2] = 200
    return Frame(
        camera="gate",
        epoch=1,
        seq=seq,
        captured_ns=seq,
        width=WIDTH,
        height=HEIGHT,
        encoding="jpeg",
        image=cv2.imencode(".jpg", image)[1].tobytes(),
        motion=motion,
    )


async def log_of(*values: bytes) -> MemoryLog:
    log = MemoryLog(partitions=1)
    for value in values:
        await log.produce(Outgoing(FRAMES, 0, value, key=b"gate"))
    return log


async def test_calibration_prepares_regions_of_the_newest_frames_in_the_same_way_as_a_pipeline() -> None:
    right = Box(40, 8, 60, 40)
    frames = [frame(1, (Box(0, 0, 20, 40),)), frame(2, ()), frame(3, (right,)), frame(4, None)]
    log = await log_of(*map(encode, frames), b"no frame")
    found = await from_log(log, manifest(), 4)
    assert len(found) == 2, "nothing moves in the second frame, and the last record is no frame"
    region, whole = found[0], found[1]
    assert region.shape == whole.shape == (1, SIZE, SIZE, 3)
    np.testing.assert_allclose(region[0, 8, 8], (200, 0, 0), atol=10)  # red, in the order RGB
    np.testing.assert_allclose(whole[0, 8, 2], (0, 0, 200), atol=10)


async def test_calibration_pictures_of_a_detector_are_whole_frames() -> None:
    found = await from_log(await log_of(encode(frame(1, ()))), manifest("yolox"), 9)
    assert [picture.shape for picture in found] == [(1, SIZE, SIZE, 3)]


async def test_taking_calibration_pictures_from_a_site_without_frames_is_refused() -> None:
    with pytest.raises(ConfigError, match="--from-log = '5': expected a site whose topic frames has pictures"):
        await from_log(await log_of(), manifest(), 5)


def test_pictures_are_split_into_two_halves_without_overlap_and_with_equal_shares_of_classes() -> None:
    samples = [PictureSample(Path(f"{n}.png"), label="ab"[n % 3 == 0]) for n in range(20)]
    first, second = PreparedPictures(samples, manifest()).halves()
    assert len(first) + len(second) == 20
    assert {*first._samples, *second._samples} == set(samples)
    assert abs(first.labels.count("a") - second.labels.count("a")) <= 1
    assert abs(first.labels.count("b") - second.labels.count("b")) <= 1


@pytest.mark.parametrize(("count", "most", "expected"), [(10, 3, 3), (3, 10, 3), (7, 7, 7), (0, 5, 0)])
def test_at_most_the_requested_number_of_different_calibration_pictures_is_selected(
    count: int, most: int, expected: int
) -> None:
    samples = [PictureSample(Path(f"{n}.png"), label=str(n)) for n in range(count)]
    found = PreparedPictures(samples, manifest()).spread(most)
    assert len(found) == len(set(found.labels)) == expected
