"""Chaos tests of cameras: kills, hangs, low bandwidth and garbage. Ledgers balance and other cameras go on."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_agent.camera.camera import Camera
from edge_agent.sources.simulated.config import SceneConfig
from edge_agent.sources.simulated.scene import SimulatedScene
from ingest.runtime.clock import SystemClock
from ingest.site import CameraConfig
from tests.peers import units
from tests.peers.network.proxy import Proxy
from tests.peers.rig import Rig, flows, until
from tests.peers.rtsp import RtspServer

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(480)]

FPS = 10
KILLS = 20
CAP_S = 0.2
START_S = 4.0
"""Time for a child to start on a busy machine, connect, and get its first frames, in seconds."""
STALL_S = 2.0
BUSY_S = 20.0
"""Slack of each time limit, in seconds: a busy machine is slow to start a child and to notice a child's exit."""


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    rig.close()


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return six seconds of a road, as access units."""
    folder = tmp_path_factory.mktemp("road")
    scene = SimulatedScene(SceneConfig(kind="road", width=320, height=180, fps=FPS))
    clip = units.encode(folder / "road.mp4", (scene.render(i).image for i in range(6 * FPS)), FPS)
    return units.units(clip, folder / "road.units")


def camera(name: str, source: str, **fields: object) -> CameraConfig:
    known = {"gate": {"motion": False, "max_fps": 0.0}, "watch": {"stall_s": STALL_S}}
    return CameraConfig.model_validate({"name": name, "source": source, **known, **fields})


def bystander() -> CameraConfig:
    """Return a camera that must not be disturbed. A capture process that waits for a busy processor is not hung."""
    return camera("bystander", "simulated:yard", fps=FPS, width=160, height=90, watch={"stall_s": 60.0})


def require_undisturbed(rig: Rig, ran_s: float) -> None:
    """Fail unless the bystander has one epoch with all frames of the elapsed time."""
    (epoch,) = rig.epochs("bystander").values()
    epoch.require_whole()
    assert epoch.withheld == {}
    assert len(epoch.frames) >= 0.9 * FPS * (ran_s - START_S)


async def back(broken: Camera, epoch: int) -> float:
    """Wait until a camera keeps frames in a later epoch. Return the elapsed time in s."""
    await until(lambda: broken.epoch > epoch, "a new start")
    return await flows(broken, 1)


async def test_a_camera_is_captured_again_after_each_of_twenty_server_kills(
    rig: Rig, rtsp_server: Callable[..., RtspServer], road: Path
) -> None:
    server, clock = rtsp_server({"road": road}), SystemClock()
    flapping = rig.add(camera("flapping", server.url("road")), cap_s=CAP_S)
    rig.add(bystander())
    took_s, started_s = [], clock.monotonic()
    async with rig.running():
        for _ in range(KILLS):
            await flows(flapping)
            epoch = flapping.epoch
            server.kill()
            await until(lambda: flapping.state == "down", "an end")
            await asyncio.to_thread(server.start)
            took_s.append(await back(flapping, epoch))
        ran_s = clock.monotonic() - started_s
    assert max(took_s) <= CAP_S + BUSY_S
    epochs = rig.epochs("flapping")
    assert len(epochs) >= KILLS + 1
    for epoch in epochs.values():
        epoch.require_whole()
        assert epoch.end is not None
        assert epoch.end.clean
    assert sum(len(epoch.frames) for epoch in epochs.values()) == flapping.kept
    require_undisturbed(rig, ran_s)


@pytest.mark.parametrize("how", ["hung", "cut"])
async def test_a_hung_or_broken_camera_link_is_detected_within_the_time_limit(
    how: str, rig: Rig, rtsp_server: Callable[..., RtspServer], road: Path
) -> None:
    server = rtsp_server({"road": road})
    async with Proxy(server.port).running() as proxy:
        far = rig.add(camera("far", f"rtsp://127.0.0.1:{proxy.port}/road"), cap_s=CAP_S)
        async with rig.running():
            for _ in range(2):
                await flows(far)
                epoch = far.epoch
                proxy.hang() if how == "hung" else proxy.cut()
                await until(lambda: far.state == "down", "the detection", STALL_S + BUSY_S)
                assert ("no data for 2 s" in far.reason) is (how == "hung")
                proxy.cut()
                proxy.go_on()
                assert await back(far, epoch) <= CAP_S + BUSY_S
    for epoch_ in rig.epochs("far").values():
        epoch_.require_whole()


async def test_a_hung_camera_server_is_disconnected_and_reconnected(
    rig: Rig, rtsp_server: Callable[..., RtspServer], road: Path
) -> None:
    server = rtsp_server({"road": road})
    hanging = rig.add(camera("hanging", server.url("road")), cap_s=CAP_S)
    async with rig.running():
        await flows(hanging)
        epoch = hanging.epoch
        server.hang()
        await until(lambda: hanging.state == "down", "the detection", STALL_S + BUSY_S)
        server.kill()
        await asyncio.to_thread(server.start)
        assert await back(hanging, epoch) <= CAP_S + STALL_S + BUSY_S
    for epoch_ in rig.epochs("hanging").values():
        epoch_.require_whole()


async def test_all_frame_numbers_are_accounted_for_at_a_third_of_the_needed_network_bandwidth(
    rig: Rig, rtsp_server: Callable[..., RtspServer], road: Path
) -> None:
    server, clock = rtsp_server({"road": road}), SystemClock()
    async with Proxy(server.port).running() as proxy:
        thin = rig.add(camera("thin", f"rtsp://127.0.0.1:{proxy.port}/road"), cap_s=CAP_S)
        async with rig.running():
            await flows(thin)
            passed, at_s = proxy.passed_bytes, clock.monotonic()
            await flows(thin, 3 * FPS)
            usual = (proxy.passed_bytes - passed) / (clock.monotonic() - at_s)
            proxy.bytes_per_s = usual / 3
            await flows(thin, FPS)
            proxy.bytes_per_s = 0.0
            took_s = await flows(thin, 2 * FPS)
        assert took_s <= 2 + CAP_S + STALL_S + BUSY_S
    for epoch in rig.epochs("thin").values():
        epoch.require_whole()


_STEP = {"little": 1, "big": -1}
"""Order of width and height: AVI has the width first, JPEG the height."""


def fuzzed(data: bytes, seed: int, *, share: float) -> bytes:
    """Return data with random bytes after the header changed."""
    chance, broken = random.Random(seed), bytearray(data)
    for _ in range(round(len(data) * share)):
        broken[chance.randrange(256, len(data))] = chance.randrange(256)
    return bytes(broken)


def mp4(folder: Path) -> bytes:
    scene = SimulatedScene(SceneConfig(kind="yard", width=320, height=180, fps=FPS))
    return units.encode(folder / "good.mp4", (scene.render(i).image for i in range(3 * FPS)), FPS).read_bytes()


def avi(folder: Path) -> bytes:
    """Return MJPEG in AVI, with an odd picture size."""
    scene = SimulatedScene(SceneConfig(kind="yard", width=161, height=91, fps=FPS))
    pictures = (scene.render(i).image for i in range(3 * FPS))
    return units.encode(folder / "good.avi", pictures, FPS, "mjpeg").read_bytes()


def claiming(data: bytes, size: tuple[int, int], to: tuple[int, int]) -> bytes:
    """Return MJPEG in AVI with another size in the headers of the file and of each picture."""
    for length, order in ((4, "little"), (2, "big")):
        was, now = (b"".join(side.to_bytes(length, order) for side in pair[:: _STEP[order]]) for pair in (size, to))
        assert was in data
        data = data.replace(was, now)
    return data


async def run_beside_bystander(rig: Rig, folder: Path, files: dict[str, bytes], states: set[str]) -> float:
    """Run a camera for each file until it is in one of the states. Return the elapsed time in s.

    Fail unless the bystander is undisturbed.
    """
    for name, data in files.items():
        (folder / name).write_bytes(data)
        rig.add(camera(name, str(folder / name), fps=50, loop=True), base_s=1.0, cap_s=2.0)
    rig.add(bystander())
    clock = SystemClock()
    async with rig.running():
        await flows(rig.cameras["bystander"])
        started_s = clock.monotonic()
        for name in files:
            await until(lambda name=name: rig.cameras[name].state in states, f"{states} of {name}")  # type: ignore[misc]
        await flows(rig.cameras["bystander"], 5 * FPS)
        ran_s = clock.monotonic() - started_s
    for name in rig.cameras:
        for epoch in rig.epochs(name).values():
            epoch.require_whole()
    require_undisturbed(rig, ran_s)
    return ran_s


async def test_unusable_files_are_opened_again_after_pauses_and_affect_no_other_camera(
    rig: Rig, tmp_path: Path
) -> None:
    whole_mp4 = mp4(tmp_path)
    broken = {
        "cut.mp4": whole_mp4[: len(whole_mp4) // 2],
        "empty.avi": b"",
        "text.mp4": b"this is no film\n" * 1000,
        "huge.avi": claiming(avi(tmp_path), (161, 91), (60_000, 60_000)),
    }
    ran_s = await run_beside_bystander(rig, tmp_path, broken, {"down"})
    for name in broken:
        assert rig.cameras[name].reason.startswith(str(tmp_path / name)) or rig.cameras[name].state == "ended"
        assert len(rig.epochs(name)) <= 4 + ran_s  # pauses of 1 to 2 s after the first few


@pytest.mark.parametrize("seed", range(3))
async def test_a_camera_that_sends_garbage_affects_no_other_camera(seed: int, rig: Rig, tmp_path: Path) -> None:
    whole_mp4, whole_avi = mp4(tmp_path), avi(tmp_path)
    damaged = {
        "some.mp4": fuzzed(whole_mp4, seed, share=0.002),
        "much.mp4": fuzzed(whole_mp4, seed, share=0.05),
        "some.avi": fuzzed(whole_avi, seed, share=0.002),
        "much.avi": fuzzed(whole_avi, seed, share=0.05),
        "cut.avi": whole_avi[: len(whole_avi) // 2],
    }
    await run_beside_bystander(rig, tmp_path, damaged, {"running", "down"})


async def test_a_crashed_or_hung_decoder_affects_no_other_camera(rig: Rig) -> None:
    fields = {"fps": FPS, "width": 160, "height": 90}
    crashing = rig.add(camera("crashing", "simulated:road", **fields))
    hanging = rig.add(camera("hanging", "simulated:road", watch={"stall_s": 0.5}, **fields))
    rig.add(bystander())
    clock = SystemClock()
    started_s = clock.monotonic()
    async with rig.running():
        for name in rig.cameras:
            await flows(rig.cameras[name])
        epochs = crashing.epoch, hanging.epoch
        for broken, signal_ in ((crashing, signal.SIGSEGV), (hanging, signal.SIGSTOP)):
            assert broken._process is not None
            os.kill(broken._process.pid, signal_)
        await until(lambda: crashing.state == "down", "an end of the one that crashed", BUSY_S)
        assert "SIGSEGV" in crashing.reason
        await until(lambda: hanging.state == "down", "an end of the one that hangs", 0.5 * 2 + BUSY_S)
        assert "no message from the capture process" in hanging.reason
        await back(crashing, epochs[0])
        await back(hanging, epochs[1])
        ran_s = clock.monotonic() - started_s
    for name in rig.cameras:
        for epoch in rig.epochs(name).values():
            epoch.require_whole()
    require_undisturbed(rig, ran_s)


def bomb(width: int, height: int) -> bytes:
    """Return a small JPEG whose header claims another size."""
    data = cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1].tobytes()
    size = data.index(b"\xff\xc0") + 5
    return data[:size] + height.to_bytes(2, "big") + width.to_bytes(2, "big") + data[size + 4 :]


async def test_a_picture_with_a_huge_claimed_size_is_withheld_without_allocating_its_memory(
    rig: Rig, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    images = rig.add(camera("images", f"images:{folder}", fps=FPS))
    async with rig.running():
        await until(lambda: images.state == "running", "a start")
        good = cv2.imencode(".jpg", np.zeros((64, 64, 3), np.uint8))[1].tobytes()
        for number, data in enumerate((bomb(65_500, 65_500), bomb(8_000, 5_000), good)):
            (folder / f"{number}.jpg").write_bytes(data)
        await flows(images, 1)
        assert images._process is not None
        peak_kb = int(_status(images._process.pid)["VmHWM"].split()[0])
    (epoch,) = rig.epochs("images").values()
    epoch.require_whole()
    assert (epoch.withheld, [f.width for f in epoch.frames]) == ({"unusable": 2}, [64])
    assert peak_kb < 150 * 1024


def _status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
