"""Tests of RTSP cameras with a real server: logins, TLS, UDP, the camera's clock, and errors."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import islice, pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from edge_agent.exceptions import FrameUnusable, SourceStalled, SourceUnusable
from edge_agent.sources.address import resolve
from edge_agent.sources.rtsp import stream as stream_module
from edge_agent.sources.rtsp.stream import StreamSource
from edge_agent.sources.source import CapturedFrame
from ingest.runtime.clock import ManualClock, SystemClock
from ingest.site import StreamConfig
from tests.peers import units
from tests.peers.certificates import self_signed
from tests.peers.rtsp import RtspServer

FPS = 10
SECRET = "p@ss/w:o rd%"
Serve = Callable[..., RtspServer]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    noise = np.random.default_rng(0)
    pictures = (noise.integers(0, 255, (96, 160, 3), np.uint8) for _ in range(3 * FPS))
    return units.units(units.encode(folder / "clip.mp4", pictures, FPS), folder / "clip.units")


@pytest.fixture
def connect(tmp_path: Path) -> Iterator[Callable[..., StreamSource]]:
    made: list[StreamSource] = []

    def make(url: str, password: str = "", *, stall_s: float = 5.0, **fields: object) -> StreamSource:
        if password:
            (tmp_path / "password").write_text(password)
            fields |= {"user": "ad min", "password_file": tmp_path / "password"}
        config = StreamConfig.model_validate(fields)
        notices: list[str] = []
        made.append(
            StreamSource(resolve(url, config), config, SystemClock(), stall_s=stall_s, on_notice=notices.append)
        )
        made[-1].notices = notices  # type: ignore[attr-defined]
        return made[-1]

    yield make
    for source in made:
        source.close()


Connect = Callable[..., StreamSource]


def frames(source: StreamSource, count: int) -> list[CapturedFrame]:
    source.open()
    return [source.read() for _ in range(count)]


@pytest.mark.parametrize("method", [(), ("--digest",)], ids=["basic", "digest"])
def test_rtsp_basic_and_digest_logins_work_with_special_characters(
    method: tuple[str, ...], rtsp_server: Serve, connect: Connect, clip: Path
) -> None:
    server = rtsp_server({"clip": clip}, "--user=ad min", f"--password={SECRET}", *method)
    assert frames(connect(server.url("clip"), SECRET), 1)[0].image.shape == (96, 160, 3)
    with pytest.raises(SourceUnusable, match="401 Unauthorized") as caught:
        connect(server.url("clip"), "wrong-one").open()
    assert "wrong-one" not in str(caught.value)


def test_rtsp_over_tls_requires_a_trusted_certificate(
    rtsp_server: Serve, connect: Connect, clip: Path, tmp_path: Path
) -> None:
    certificate, key = self_signed(tmp_path)
    server = rtsp_server(
        {"clip": clip}, "--user=ad min", f"--password={SECRET}", f"--cert={certificate}", f"--key={key}"
    )
    url = server.url("clip", "rtsps")
    with pytest.raises(SourceUnusable):
        connect(url, SECRET).open()
    assert len(frames(connect(url, SECRET, ca_file=certificate), 1)) == 1
    assert len(frames(connect(url, SECRET, verify=False), 1)) == 1


def test_an_rtsp_camera_without_udp_is_read_over_tcp_and_reported(
    rtsp_server: Serve, connect: Connect, clip: Path
) -> None:
    source = connect(rtsp_server({"clip": clip}, "--tcp-only").url("clip"), transport="udp")
    assert len(frames(source, 2)) == 2
    (notice,) = source.notices  # type: ignore[attr-defined]
    assert "using TCP instead" in notice


def test_rtsp_falls_back_to_tcp_in_time_when_no_udp_packets_arrive(
    rtsp_server: Serve, connect: Connect, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server sends no UDP packets, as if a firewall dropped them."""
    real, tried = stream_module.open_video, []

    def behind_firewall(url: str, options: dict[str, str], **times: float) -> object:
        tried.append((options["rtsp_transport"], times["open_s"]))
        if options["rtsp_transport"] == "udp":
            raise TimeoutError("nothing came")
        return real(url, options, **times)

    monkeypatch.setattr(stream_module, "open_video", behind_firewall)
    assert len(frames(connect(rtsp_server({"clip": clip}).url("clip"), transport="udp"), 1)) == 1
    assert tried == [("udp", stream_module.UDP_S), ("tcp", 5.0)]


def test_the_camera_clock_is_read_from_sender_reports(rtsp_server: Serve, connect: Connect, clip: Path) -> None:
    found = frames(connect(rtsp_server({"clip": clip}).url("clip")), 4 * FPS)
    by = [captured.time_source for captured in found]
    assert by[0] == "host"
    assert by[-1] == "stream"
    assert found[0].error_ms is None
    last = found[-1]
    assert last.error_ms is not None
    assert last.error_ms < 500  # both ends share one clock: the difference is the delay of the server
    steps = [b.captured_ns - a.captured_ns for a, b in pairwise(found) if a.time_source == "stream"]
    assert all(0.85e8 <= step <= 1.15e8 for step in steps), steps


def test_real_footage_with_reordered_frames_arrives_in_display_order(
    rtsp_server: Serve, connect: Connect, shared_data: Path, tmp_path: Path
) -> None:
    with av.open(str(shared_data / "car-detection.mp4")) as container:
        film = [frame.to_ndarray(format="bgr24") for frame in islice(container.decode(video=0), 30)]
    served = units.units(shared_data / "car-detection.mp4", tmp_path / "car.units")
    found = frames(connect(rtsp_server({"car": served}).url("car")), 30)
    assert all(np.array_equal(captured.image, picture) for captured, picture in zip(found, film, strict=True))
    assert all(a.captured_ns < b.captured_ns for a, b in pairwise(found))


def test_a_frame_dropped_by_the_camera_over_tcp_does_not_delay_later_frames(
    rtsp_server: Serve, connect: Connect, clip: Path
) -> None:
    """With the long reorder queue for UDP, FFmpeg would wait for seconds and then return all frames at once."""
    source = connect(rtsp_server({"clip": clip}, f"--drop={2 * FPS}").url("clip"), own_clock=False)
    found = frames(source, 4 * FPS)
    assert max(b.captured_ns - a.captured_ns for a, b in pairwise(found)) < 1e9
    assert any(damaged(captured) for captured in found)
    assert not damaged(found[-1])


def test_the_site_file_can_disable_the_camera_clock(rtsp_server: Serve, connect: Connect, clip: Path) -> None:
    found = frames(connect(rtsp_server({"clip": clip}).url("clip"), own_clock=False), 3 * FPS)
    assert {captured.time_source for captured in found} == {"host"}


def test_a_camera_clock_with_a_large_skew_is_reported_once_and_not_used(
    rtsp_server: Serve, connect: Connect, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = connect(rtsp_server({"clip": clip}).url("clip"))
    real = stream_module.SenderReports.time_ns

    def an_hour_ahead(*args: object) -> int | None:
        true_ns = real(*args)  # type: ignore[arg-type]
        return true_ns if true_ns is None else true_ns + 3600 * 10**9

    monkeypatch.setattr(stream_module.SenderReports, "time_ns", an_hour_ahead)
    found = frames(source, 4 * FPS)
    assert {captured.time_source for captured in found} == {"host"}
    (notice,) = source.notices  # type: ignore[attr-defined]
    assert "by +3600.0 s" in notice or "by +3599.9 s" in notice


def test_a_missing_rtsp_stream_or_server_is_reported(rtsp_server: Serve, connect: Connect, clip: Path) -> None:
    server = rtsp_server({"clip": clip})
    with pytest.raises(SourceUnusable, match="nowhere: Server returned 404"):
        connect(server.url("nowhere")).open()
    server.kill()
    with pytest.raises(SourceUnusable, match="Connection refused"):
        connect(server.url("clip")).open()


def test_a_silent_rtsp_server_is_unusable_after_the_stall_time(connect: Connect) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        clock, source = SystemClock(), connect(f"rtsp://127.0.0.1:{silent.getsockname()[1]}/x", stall_s=0.5)
        started_s = clock.monotonic()
        with pytest.raises(SourceUnusable, match=r"no data for 0\.5 s"):
            source.open()
        assert clock.monotonic() - started_s < 1.5


def test_the_image_of_an_rtsp_frame_can_be_converted_after_later_frames_were_read(
    rtsp_server: Serve, connect: Connect, clip: Path
) -> None:
    found = frames(connect(rtsp_server({"clip": clip}).url("clip")), 6)
    pictures = [captured.image for captured in found]
    assert len({picture.tobytes() for picture in pictures}) == 6


class Undecodable:
    """Undecodable packet, 0.5 s after the previous one."""

    pts = None

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock

    def decode(self) -> list[object]:
        self._clock.advance(0.5)
        raise av.error.InvalidDataError(1, "Invalid data found")


class Nonsense:
    """Endless stream of undecodable packets."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock

    def demux(self, _: object) -> Iterator[Undecodable]:
        while True:
            yield Undecodable(self._clock)

    def close(self) -> None:
        pass


def test_undecodable_rtsp_packets_give_unusable_frames_and_then_a_stalled_source(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = ManualClock()
    monkeypatch.setattr(stream_module, "open_video", lambda *_, **__: (Nonsense(clock), None))
    source = StreamSource(resolve("rtsp://a/b", StreamConfig()), StreamConfig(), clock, stall_s=5.0)
    source.open()
    for _ in range(9):
        captured = source.read()
        with pytest.raises(FrameUnusable, match="cannot be decoded"):
            _ = captured.image
    with pytest.raises(SourceStalled, match=r"no intact frame for 5 s"):
        exhaust(source)


def damaged(captured: CapturedFrame) -> bool:
    try:
        return not captured.image.size
    except FrameUnusable:
        return True


class TornOff:
    """Fake video whose last frame is incomplete. FFmpeg returns this frame at the timeout."""

    def __init__(self, film: Path, clock: ManualClock, wait_s: float) -> None:
        self._film, self._clock, self._wait_s = film, clock, wait_s

    def demux(self, _: object) -> Iterator[av.Packet]:
        with av.open(str(self._film)) as container:
            *whole, last = (packet for packet in container.demux(video=0) if packet.size)
            yield from whole
            self._clock.advance(self._wait_s)
            torn = av.Packet(bytes(last)[: last.size // 2])
            torn.stream, torn.pts, torn.dts, torn.time_base = last.stream, last.pts, last.dts, last.time_base
            yield torn

    def close(self) -> None:
        pass


@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_an_rtsp_frame_that_is_incomplete_at_the_timeout_is_damaged(
    codec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise, clock = np.random.default_rng(0), ManualClock()
    pictures = (noise.integers(0, 255, (96, 160, 3), np.uint8) for _ in range(FPS))
    film = units.encode(tmp_path / "film.ts", pictures, FPS, codec)
    monkeypatch.setattr(stream_module, "open_video", lambda *_, **__: (TornOff(film, clock, 5.1), None))
    source = StreamSource(resolve("rtsp://a/b", StreamConfig()), StreamConfig(), clock, stall_s=5.0)
    found = frames(source, FPS)
    assert [damaged(captured) for captured in found] == [False] * (FPS - 1) + [True]
    with pytest.raises(SourceStalled, match="no data for 5 s"):
        source.read()


def exhaust(source: StreamSource) -> None:
    for _ in range(1000):
        source.read()


def test_a_capture_child_prints_an_rtsp_login_error_without_the_password(
    rtsp_server: Serve, clip: Path, tmp_path: Path
) -> None:
    server = rtsp_server({"clip": clip}, "--user=admin", "--password=right")
    (tmp_path / "password").write_text("hunter2-wrong")
    stream = {"user": "admin", "password_file": str(tmp_path / "password")}
    camera = {"name": "a", "source": server.url("clip"), "stream": stream}
    orders = {"camera": camera, "epoch": 1, "truth_folder": None, "state_folder": None}
    child = subprocess.run(
        [sys.executable, "-m", "edge_agent.camera.child"],
        input=(json.dumps(orders) + "\n").encode(),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert child.returncode == 3
    assert b"401 Unauthorized" in child.stderr
    assert b"hunter2" not in child.stderr + child.stdout
