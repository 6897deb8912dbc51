"""What every source of frames does. The clock is a manual one: no test waits for a camera's pace."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_agent.capture.pace import Pace
from edge_agent.capture.simulated.config import SceneConfig
from edge_agent.capture.simulated.source import SimulatedSource
from edge_agent.capture.source import Captured, FrameSource
from edge_agent.capture.video import DeviceSource, FileSource
from edge_agent.exceptions import SourceEnded, SourceUnusable
from ingest.clock import ManualClock

FPS = 10.0
FRAMES = 6
"""Each source in these tests is over after so many."""


class FrameSourceContract:
    """Inherited by one class per source that has frames here."""

    @pytest.fixture
    def clock(self) -> ManualClock:
        return ManualClock()

    @pytest.fixture
    def source(self, clock: ManualClock, tmp_path: Path) -> FrameSource:
        pytest.fail("each source has a fixture of its own")

    def all_of(self, source: FrameSource) -> list[Captured]:
        source.open()
        found = [source.read() for _ in range(FRAMES)]
        with pytest.raises(SourceEnded):
            source.read()
        source.close()
        return found

    def test_frames_are_pictures_until_it_ends(self, source: FrameSource) -> None:
        found = self.all_of(source)
        assert {(f.image.dtype, f.image.ndim, f.image.shape[2]) for f in found} == {(np.dtype(np.uint8), 3, 3)}
        assert len({f.image.shape for f in found}) == 1
        assert {f.time_source for f in found} == {"host"}

    def test_they_come_at_the_pace_and_say_when(self, source: FrameSource) -> None:
        times = [f.captured_ns for f in self.all_of(source)]
        assert [later - earlier for earlier, later in pairwise(times)] == [round(1e9 / FPS)] * (FRAMES - 1)

    def test_a_picture_belongs_to_the_receiver(self, source: FrameSource) -> None:
        source.open()
        first = source.read().image
        kept = first.copy()
        second = source.read().image
        second[:] = 0
        assert np.array_equal(first, kept)
        source.read()
        assert not second.any()
        source.close()

    def test_it_does_not_read_before_it_is_open_and_closes_at_any_time(self, source: FrameSource) -> None:
        source.close()
        with pytest.raises(SourceUnusable, match="not open"):
            source.read()
        source.open()
        source.close()
        source.close()
        with pytest.raises(SourceUnusable, match="not open"):
            source.read()


class TestFile(FrameSourceContract):
    @pytest.fixture
    def source(self, clock: ManualClock, tmp_path: Path) -> FrameSource:
        path = tmp_path / "clip.avi"
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), FPS, (64, 48))
        for level in range(FRAMES):
            writer.write(np.full((48, 64, 3), 40 * level, np.uint8))
        writer.release()
        return FileSource(path, FPS, clock, pace=Pace(FPS, clock, wait=clock.advance))


class TestSimulated(FrameSourceContract):
    @pytest.fixture
    def source(self, clock: ManualClock, tmp_path: Path) -> FrameSource:
        config = SceneConfig(kind="road", fps=FPS, width=160, height=90)
        return SimulatedSource(config, clock, frames=FRAMES, pace=Pace(FPS, clock, wait=clock.advance))


@pytest.mark.parametrize(
    "source",
    [DeviceSource(4095, FPS, ManualClock()), FileSource(Path("/no/such/clip.mp4"), FPS, ManualClock())],
    ids=["device", "file"],
)
def test_one_that_is_not_there_says_so_and_may_be_tried_again(source: FrameSource) -> None:
    for _ in range(2):
        with pytest.raises(SourceUnusable, match=r"4095|clip\.mp4"):
            source.open()
    source.close()
