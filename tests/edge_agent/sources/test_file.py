"""Tests of video files: cover pictures, mirrored videos, names that look like addresses."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition

from edge_agent.exceptions import SourceUnusable
from edge_agent.sources.file import FileSource
from edge_agent.sources.pace import FramePacer
from edge_agent.sources.source import Image
from ingest.runtime.clock import ManualClock
from tests.peers import units

ONE = 1 << 16
"""The number 1.0 in the fixed-point format of a display matrix."""


def picture() -> Image:
    """Return a picture whose corners differ: top left 50, top right 100, bottom left 150, bottom right 200."""
    image = np.zeros((64, 96, 3), np.uint8)
    image[:32, :48], image[:32, 48:], image[32:, :48], image[32:, 48:] = 50, 100, 150, 200
    return image


def corners(image: Image) -> list[list[int]]:
    grey = image.mean(axis=2)
    return [[round(float(grey[y, x]) / 50) * 50 for x in (4, -4)] for y in (4, -4)]


def first(path: Path) -> Image:
    clock = ManualClock()
    source = FileSource(path, 10, clock, pace=FramePacer(10, clock, wait=clock.advance))
    source.open()
    captured = source.read()
    source.close()
    assert captured is not None
    return captured.image


def with_matrix(path: Path, a: int, b: int, c: int, d: int) -> Path:
    """Encode a video, and write a display matrix into its track header."""
    units.encode(path, [picture()] * 3, 10)
    plain, data = struct.pack(">9i", ONE, 0, 0, 0, ONE, 0, 0, 0, 1 << 30), path.read_bytes()
    track = data.index(plain, data.index(b"tkhd"))
    matrix = struct.pack(">9i", a * ONE, b * ONE, 0, c * ONE, d * ONE, 0, 0, 0, 1 << 30)
    path.write_bytes(data[:track] + matrix + data[track + len(plain) :])
    return path


def boxes(data: bytes) -> Iterator[bytes]:
    """Split the contents of an MP4 file or box into its boxes."""
    while data:
        size = int.from_bytes(data[:4])
        yield data[:size]
        data = data[size:]


def cover_first(path: Path) -> Path:
    """Write a video with a cover picture, whose metadata stand before the tracks."""
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=10, width=96, height=64, pix_fmt="yuv420p")
        cover = out.add_stream("mjpeg", rate=1, width=32, height=32, pix_fmt="yuvj420p")
        cover.disposition = Disposition.attached_pic
        for stream, image in ((cover, np.zeros((32, 32, 3), np.uint8)), *[(video, picture())] * 3):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        for stream in (cover, video):
            out.mux(stream.encode())
    found = list(boxes(path.read_bytes()))
    (at,) = (index for index, box in enumerate(found) if box[4:8] == b"moov")
    inner = sorted(boxes(found[at][8:]), key=lambda box: [b"mvhd", b"udta", b"trak"].index(box[4:8]))
    found[at] = found[at][:8] + b"".join(inner)
    path.write_bytes(b"".join(found))
    return path


@pytest.mark.parametrize(
    ("matrix", "shown"),
    [
        ((1, 0, 0, 1), [[50, 100], [150, 200]]),
        ((-1, 0, 0, 1), [[100, 50], [200, 150]]),
        ((1, 0, 0, -1), [[150, 200], [50, 100]]),
        ((-1, 0, 0, -1), [[200, 150], [100, 50]]),
        ((0, 1, -1, 0), [[150, 50], [200, 100]]),
        ((0, -1, 1, 0), [[100, 200], [50, 150]]),
        ((0, 1, 1, 0), [[50, 150], [100, 200]]),
        ((0, -1, -1, 0), [[200, 100], [150, 50]]),
    ],
    ids=["plain", "hflip", "vflip", "180", "90 clockwise", "90 anticlockwise", "transpose", "transverse"],
)
def test_pictures_of_a_video_are_rotated_and_mirrored_as_its_display_matrix_says(
    matrix: tuple[int, int, int, int], shown: list[list[int]], tmp_path: Path
) -> None:
    assert corners(first(with_matrix(tmp_path / "a.mp4", *matrix))) == shown


def test_a_cover_picture_before_the_video_stream_of_a_file_is_skipped(tmp_path: Path) -> None:
    path = cover_first(tmp_path / "cover.mp4")
    with av.open(str(path)) as made:
        assert made.streams.video[0].disposition & Disposition.attached_pic
    assert first(path).shape == (64, 96, 3)


def test_a_relative_file_name_with_colons_is_opened_as_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    units.encode(tmp_path / "a.mp4", [picture()] * 3, 10).rename(tmp_path / "2026-11-29T12:00:00.mp4")
    monkeypatch.chdir(tmp_path)
    assert first(Path("2026-11-29T12:00:00.mp4")).shape == (64, 96, 3)


def test_the_error_for_a_missing_video_file_shows_the_configured_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceUnusable, match=r"^none\.mp4: expected a video file"):
        first(Path("none.mp4"))
