"""Tests of finding picture files and of capturing them as frames."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from deploy.classify.pictures import PictureCapture, find_pictures
from edge_agent.exceptions import FrameUnusable
from edge_agent.sources.limits import MAX_PIXELS
from ingest import picture as prepared
from ingest.contract.codec import decode
from ingest.contract.records import Frame
from ingest.exceptions import ConfigError

WIDTH, HEIGHT = 60, 40
COLOUR = (20, 120, 220)


def flat(kind: type = np.uint8, factor: int = 1) -> np.ndarray:
    return (np.full((HEIGHT, WIDTH, 3), COLOUR, np.uint16) * factor).astype(kind)


def write(folder: Path, name: str, image: np.ndarray | None = None) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), flat() if image is None else image)
    return path


def png_header(width: int, height: int) -> bytes:
    """Return the beginning of a PNG that claims this size."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 100) + b"IDAT" + bytes(104)


def test_classify_reads_files_in_the_given_order_and_folders_sorted_with_sub_folders(tmp_path: Path) -> None:
    names = ["b.png", "a.jpg", "sub/c.TIF", "sub/.hidden.png"]
    paths = {name: write(tmp_path / "folder", name) for name in names}
    (tmp_path / "folder" / "notes.txt").write_text("no picture")
    odd = write(tmp_path, "odd.png").rename(tmp_path / "odd.scan")
    found = find_pictures([odd, paths["b.png"], tmp_path / "folder"])
    assert found == [odd, paths["b.png"], paths["a.jpg"], paths["sub/c.TIF"]]


def test_classify_refuses_a_missing_path_and_a_folder_without_pictures(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a picture or a folder that exists"):
        find_pictures([write(tmp_path, "a.png"), tmp_path / "none.png"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="a folder with JPEG"):
        find_pictures([tmp_path / "empty"])


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("a.jpg", flat()),
        ("a.png", flat()),
        ("a.webp", flat()),
        ("a.tiff", flat()),
        ("a.bmp", flat()),
        ("alpha.png", np.dstack([flat(), np.full((HEIGHT, WIDTH), 255, np.uint8)])),
        ("deep.png", flat(np.uint16, 257)),
        ("deep.tiff", flat(np.uint16, 257)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_picture_of_any_format_becomes_a_frame_that_prepare_accepts(
    tmp_path: Path, name: str, image: np.ndarray
) -> None:
    kept = PictureCapture("classify-1", 7).take(write(tmp_path, name, image), 123)
    frame = decode(Frame, kept.record)
    assert (str(frame.id), frame.captured_ns, frame.motion, frame.account) == ("classify-1/7/0", 123, None, None)
    prepared.check(frame.image, frame.encoding, (WIDTH, HEIGHT))
    pixels = prepared.pixels(frame.image, frame.encoding, (WIDTH, HEIGHT))
    assert np.abs(pixels.reshape(-1, 3).mean(0) - COLOUR).max() < 4.0


def test_a_greyscale_picture_becomes_a_frame(tmp_path: Path) -> None:
    kept = PictureCapture("classify-1", 7).take(write(tmp_path, "grey.png", flat()[:, :, 0]), 1)
    assert decode(Frame, kept.record).width == WIDTH


def unreadable(folder: Path) -> dict[str, Path]:
    whole = write(folder, "whole.jpg", np.random.default_rng(1).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8))
    contents = {
        "is truncated": whole.read_bytes()[:900],
        "not a picture": b"hello, this is a text",
        "empty": b"",
        "expected at most": png_header(MAX_PIXELS, 2),
        "exceeds limit": png_header(2**30, 2**30),
    }
    paths = {}
    for number, (reason, content) in enumerate(contents.items()):
        paths[reason] = folder / f"bad-{number}.png"
        paths[reason].write_bytes(content)
    return paths


def test_an_unreadable_picture_is_refused_with_a_reason_and_counts_as_withheld_in_the_ledger(tmp_path: Path) -> None:
    capture = PictureCapture("classify-1", 7)
    bad = unreadable(tmp_path)
    for reason, path in bad.items():
        with pytest.raises(FrameUnusable, match=reason):
            capture.take(path, 1)
    with pytest.raises(FrameUnusable, match="was deleted"):
        capture.take(tmp_path / "none.png", 1)
    with pytest.raises(FrameUnusable, match="not a regular file"):
        capture.take(tmp_path, 1)
    kept = capture.take(write(tmp_path, "good.png"), 2)
    assert kept.seq == len(bad) + 2
    assert kept.account
    assert kept.account.counts == {"unusable": len(bad) + 2}


def test_a_picture_too_large_for_a_record_is_refused_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_agent.camera.intake.MAX_IMAGE_BYTES", 100)
    with pytest.raises(FrameUnusable, match="exceeds the limit of 100"):
        PictureCapture("classify-1", 7).take(write(tmp_path, "a.png"), 1)


def test_the_end_record_of_a_run_accounts_for_unreadable_pictures_after_the_last_frame(tmp_path: Path) -> None:
    capture = PictureCapture("classify-1", 7)
    capture.take(write(tmp_path, "good.png"), 1)
    with pytest.raises(FrameUnusable):
        capture.take(tmp_path / "none.png", 2)
    end = capture.end()
    assert end.last == 1
    assert end.tail
    assert (end.tail.first, end.tail.counts) == (1, {"unusable": 1})
