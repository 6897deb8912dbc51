"""Contract tests of all frame sources. Sources that pace their frames get a manual clock, so that no test waits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from edge_agent.exceptions import AgentError, SourceEnded, SourceStalled, SourceUnusable
from edge_agent.sources.address import resolve
from edge_agent.sources.device import DeviceSource
from edge_agent.sources.file import FileSource
from edge_agent.sources.images import ImagesSource
from edge_agent.sources.pace import FramePacer
from edge_agent.sources.rtsp.stream import StreamSource
from edge_agent.sources.simulated.config import SceneConfig
from edge_agent.sources.simulated.source import SimulatedSource
from edge_agent.sources.source import CapturedFrame, FrameSource
from edge_agent.sources.web.source import WebSource
from ingest.runtime.clock import ManualClock, SystemClock
from ingest.site import StreamConfig
from tests.peers import units
from tests.peers.rtsp import RtspServer
from tests.peers.web import WebCamera, mjpeg, picture

FPS = 10.0
FRAMES = 6
"""Number of frames after which each source ends or is made to end."""
STALL_S = 5.0


def pictures(count: int = FRAMES) -> list[npt.NDArray[np.uint8]]:
    return [np.full((48, 64, 3), 40 * level % 240, np.uint8) for level in range(count)]


def jpegs() -> list[bytes]:
    return [cv2.imencode(".jpg", image)[1].tobytes() for image in pictures()]


def write_clip(path: Path) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), FPS, (64, 48))
    for image in pictures():
        writer.write(image)
    writer.release()
    return path


def following(source: FrameSource) -> CapturedFrame:
    """Return the next frame, skipping reads that return None."""
    for _ in range(1000):
        captured = source.read()
        if captured is not None:
            return captured
    pytest.fail("no frame in 1000 reads")


def exhaust(source: FrameSource) -> None:
    for _ in range(1000):
        source.read()


class FrameSourceContract:
    """Tests that every frame source passes. Each source has a subclass."""

    over: type[AgentError] = SourceStalled
    """Error that the source raises at its end."""
    keeps_pace = True
    """Whether the source paces its frames by the given clock."""

    @pytest.fixture
    def clock(self) -> ManualClock:
        return ManualClock()

    @pytest.fixture
    def pace(self, clock: ManualClock) -> FramePacer:
        return FramePacer(FPS, clock, wait=clock.advance)

    @pytest.fixture
    def source(self, clock: ManualClock, tmp_path: Path) -> FrameSource:
        pytest.fail("each subclass must define its own source fixture")

    @pytest.fixture
    def finish(self) -> Callable[[], None]:
        """Return a function that ends the source if it does not end by itself."""
        return lambda: None

    def test_a_camera_source_yields_pictures_until_it_ends(
        self, source: FrameSource, finish: Callable[[], None]
    ) -> None:
        source.open()
        found = [following(source) for _ in range(FRAMES)]
        assert {(f.image.dtype, f.image.ndim, f.image.shape[2]) for f in found[-1:]} == {(np.dtype(np.uint8), 3, 3)}
        assert {f.time_source for f in found} <= {"host", "stream"}
        finish()
        with pytest.raises(self.over):
            exhaust(source)
        source.close()

    def test_frames_arrive_at_the_configured_rate_with_their_capture_times(self, source: FrameSource) -> None:
        source.open()
        times = [following(source).captured_ns for _ in range(FRAMES)]
        source.close()
        steps = [later - earlier for earlier, later in pairwise(times)]
        if self.keeps_pace:
            assert steps == [round(1e9 / FPS)] * (FRAMES - 1)
        else:
            assert min(steps) >= 0

    def test_pictures_of_successive_frames_share_no_memory(self, source: FrameSource) -> None:
        source.open()
        first = following(source).image
        kept = first.copy()
        second = following(source).image
        second[:] = 0
        assert np.array_equal(first, kept)
        _ = following(source).image
        assert not second.any()
        source.close()

    def test_the_picture_of_a_frame_is_decoded_once_when_it_is_first_used(self, source: FrameSource) -> None:
        source.open()
        _ = following(source)
        second = following(source)
        grey = second.luma().copy()
        assert grey.ndim == 2
        assert second.image is second.image
        assert second.shape == second.image.shape
        assert abs(float(grey.mean()) - float(second.luma().mean())) < 24  # video's black is 16
        source.close()

    def test_reading_a_closed_camera_source_fails_but_closing_it_again_succeeds(self, source: FrameSource) -> None:
        source.close()
        with pytest.raises(SourceUnusable, match="not open"):
            source.read()
        source.open()
        source.close()
        source.close()
        with pytest.raises(SourceUnusable, match="not open"):
            source.read()

    def test_a_closed_camera_source_can_be_opened_again(self, source: FrameSource) -> None:
        source.open()
        _ = following(source)
        source.close()
        source.open()
        assert following(source).image.ndim == 3
        source.close()


class TestFile(FrameSourceContract):
    over = SourceEnded

    @pytest.fixture
    def source(self, clock: ManualClock, pace: FramePacer, tmp_path: Path) -> FrameSource:
        return FileSource(write_clip(tmp_path / "clip.avi"), FPS, clock, pace=pace)


class TestSimulated(FrameSourceContract):
    over = SourceEnded

    @pytest.fixture
    def source(self, clock: ManualClock, pace: FramePacer) -> FrameSource:
        config = SceneConfig(kind="road", fps=FPS, width=160, height=90)
        return SimulatedSource(config, clock, frames=FRAMES, pace=pace)


class TestDevice(FrameSourceContract):
    """Most test machines have no V4L2 device, so OpenCV plays a file instead."""

    keeps_pace = False

    @pytest.fixture
    def source(self, clock: ManualClock, tmp_path: Path) -> FrameSource:
        path = write_clip(tmp_path / "clip.avi")
        return DeviceSource(0, FPS, clock, opens=lambda _: cv2.VideoCapture(str(path)))


class TestImages(FrameSourceContract):
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        folder = tmp_path / "in"
        folder.mkdir()
        for number, data in enumerate(jpegs()):
            (folder / f"{number}.jpg").write_bytes(data)
        return folder

    @pytest.fixture
    def source(self, clock: ManualClock, pace: FramePacer, folder: Path) -> FrameSource:
        return ImagesSource(folder, FPS, clock, existing=True, pace=pace)

    @pytest.fixture
    def finish(self, folder: Path) -> Callable[[], None]:
        return lambda: folder.rename(folder.with_name("gone")) and None


class _Web(FrameSourceContract):
    @pytest.fixture
    def camera(self) -> Iterator[WebCamera]:
        camera = WebCamera({"/snapshot": picture(jpegs()[3]), "/mjpeg": mjpeg(jpegs())})
        yield camera
        camera.stop()

    @pytest.fixture
    def finish(self, camera: WebCamera) -> Callable[[], None]:
        return camera.stop


class TestSnapshot(_Web):
    @pytest.fixture
    def source(self, clock: ManualClock, pace: FramePacer, camera: WebCamera) -> Iterator[FrameSource]:
        address = resolve(camera.url("/snapshot"), StreamConfig())
        source = WebSource(address, StreamConfig(), FPS, clock, stall_s=STALL_S, pace=pace)
        yield source
        source.close()


class TestMjpeg(_Web):
    keeps_pace = False

    @pytest.fixture
    def source(self, clock: ManualClock, camera: WebCamera) -> Iterator[FrameSource]:
        address = resolve(camera.url("/mjpeg"), StreamConfig())
        source = WebSource(address, StreamConfig(), FPS, clock, stall_s=STALL_S)
        yield source
        source.close()


class _Rtsp(FrameSourceContract):
    keeps_pace = False
    codec = "h264"
    transport = "tcp"

    @pytest.fixture
    def server(self, rtsp_server: Callable[..., RtspServer], tmp_path: Path) -> RtspServer:
        clip = units.encode(tmp_path / "clip.mp4", pictures(20), round(FPS), self.codec)
        return rtsp_server({"clip": units.units(clip, tmp_path / "clip.units")})

    @pytest.fixture
    def source(self, server: RtspServer) -> Iterator[FrameSource]:
        config = StreamConfig.model_validate({"transport": self.transport})
        source = StreamSource(resolve(server.url("clip"), config), config, SystemClock(), stall_s=STALL_S)
        yield source
        source.close()

    @pytest.fixture
    def finish(self, server: RtspServer) -> Callable[[], None]:
        return server.kill


class TestRtspByTcp(_Rtsp):
    pass


class TestRtspH265(_Rtsp):
    codec = "hevc"


class TestRtspByUdp(_Rtsp):
    transport = "udp"


@pytest.mark.parametrize(
    "source",
    [
        DeviceSource(4095, FPS, ManualClock()),
        FileSource(Path("/no/such/clip.mp4"), FPS, ManualClock()),
        ImagesSource(Path("/no/such/folder"), FPS, ManualClock()),
        WebSource(resolve("http://127.0.0.1:9/x", StreamConfig()), StreamConfig(), FPS, ManualClock(), stall_s=1),
        StreamSource(resolve("rtsp://127.0.0.1:9/x", StreamConfig()), StreamConfig(), SystemClock(), stall_s=1),
    ],
    ids=["device", "file", "images", "web", "rtsp"],
)
def test_each_attempt_to_open_a_missing_camera_source_raises_an_error_that_names_the_source(
    source: FrameSource,
) -> None:
    for _ in range(2):
        with pytest.raises(SourceUnusable, match=r"4095|clip\.mp4|folder|127\.0\.0\.1:9"):
            source.open()
    source.close()
