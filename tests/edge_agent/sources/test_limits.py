"""Tests of the limits of a capture child, and of files that exceed them."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edge_agent.exceptions import FrameUnusable, SourceUnusable
from edge_agent.sources.decode import open_video
from edge_agent.sources.file import FileSource
from edge_agent.sources.pace import FramePacer
from ingest.runtime.clock import ManualClock
from tests.peers import units

GROWS = """
import numpy as np
from edge_agent.sources.limits import limit_memory
limit_memory(64)
kept = []
try:
    while True:
        kept.append(np.ones(1 << 20, np.uint8))
except MemoryError:
    print(len(kept))
"""


def test_the_kernel_enforces_the_memory_limit_of_a_capture_process() -> None:
    said = subprocess.run([sys.executable, "-c", GROWS], capture_output=True, text=True, timeout=60, check=True)
    assert 32 <= int(said.stdout) <= 66
    assert (
        resource.getrlimit(resource.RLIMIT_DATA)[0] == resource.RLIM_INFINITY
    )  # the limit of this process is unchanged


@pytest.fixture
def wide(tmp_path: Path) -> Path:
    """Return a video with pictures larger than the limit of ``small_bound``."""
    return units.encode(tmp_path / "wide.mp4", (np.zeros((128, 256, 3), np.uint8) for _ in range(3)), 10)


@pytest.fixture
def small_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_agent.sources.decode._CODEC_OPTIONS", {"max_pixels": str(200 * 100)})


def test_a_video_with_oversized_pictures_is_refused(small_bound: None, wide: Path) -> None:
    clock = ManualClock()
    source = FileSource(wide, 10, clock, loop=True, pace=FramePacer(10, clock, wait=clock.advance))
    source.open()
    with pytest.raises(SourceUnusable, match="no frame can be decoded"):
        exhaust(source)


def test_a_file_without_a_video_stream_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(
        b"RIFF\x2c\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0\x40\x1f\0\0\x80\x3e\0\0\2\0\x10\0data\x08\0\0\0" + bytes(8)
    )
    with pytest.raises(SourceUnusable, match="expected a video stream"):
        open_video(str(tmp_path / "a.wav"), {})


def test_an_undecodable_packet_of_a_video_file_gives_an_unusable_frame(tmp_path: Path) -> None:
    clip = units.encode(tmp_path / "a.avi", (np.full((48, 64, 3), 9 * n, np.uint8) for n in range(9)), 10, "mjpeg")
    data = bytearray(clip.read_bytes())
    fourth = [at for at in range(len(data)) if data[at : at + 3] == b"\xff\xd8\xff"][3]
    data[fourth : fourth + 600] = bytes(600)
    clip.write_bytes(data)
    clock = ManualClock()
    source = FileSource(clip, 10, clock, pace=FramePacer(10, clock, wait=clock.advance))
    source.open()
    found = [source.read() for _ in range(9)]
    broken = found.pop(3)
    assert broken is not None
    with pytest.raises(FrameUnusable, match="cannot be decoded"):
        _ = broken.image
    assert [captured.image.shape for captured in found if captured] == [(48, 64, 3)] * 8
    source.close()


def exhaust(source: FileSource) -> None:
    for _ in range(1000):
        source.read()
