"""Chaos tests of cameras behind a bad wire: kept frames are intact, times are correct, and the ledger balances."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from edge_agent.sources.simulated.config import SceneConfig
from edge_agent.sources.simulated.scene import SimulatedScene
from tests.peers import units
from tests.peers.network import badwire
from tests.peers.network.badwire import BadWire
from tests.peers.network.farcamera import FarCamera, Found
from tests.peers.numbered import marked
from tests.peers.rig import flows, until

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(480)]

FPS = 10
LOSS, JITTER_S = 0.05, 0.2
LOST = 8
"""Minimum number of lost packets: parts of one key frame in three, and of a dozen other frames."""
CAP_S, STALL_S, BUSY_S = 0.2, 3.0, 20.0
"""Maximum back-off, stall time, and slack for a busy machine to start a child and to notice the end of one."""

Lay = Callable[..., AbstractContextManager[FarCamera]]


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that makes 20 s of a road in H.264 or H.265, longer than any frame delay."""
    folder, scene = (
        tmp_path_factory.mktemp("road"),
        SimulatedScene(SceneConfig(kind="road", width=320, height=180, fps=FPS)),
    )

    def make(codec: str) -> Path:
        clip = folder / f"{codec}.mp4"
        if not clip.exists():
            pictures = (marked(scene.render(number).image, number) for number in range(20 * FPS))
            units.units(units.encode(clip, pictures, FPS, codec), clip.with_suffix(".units"))
        return clip

    return make


@pytest.fixture
def wire(rtsp_is_there: None) -> Iterator[BadWire]:
    if reason := badwire.why_not():
        pytest.skip(f"no bad wire: {reason}")
    with BadWire.laid() as wire:
        yield wire


@pytest.fixture
def far(tmp_path: Path, wire: BadWire, road: Callable[[str], Path]) -> Lay:
    """Return a context that puts a camera at the far end of the wire and captures it at the near end."""

    @contextmanager
    def lay(transport: str, codec: str = "h264") -> Iterator[FarCamera]:
        there = FarCamera(tmp_path, wire, road(codec), transport=transport, cap_s=CAP_S, stall_s=STALL_S)
        try:
            with there.near():
                yield there
        finally:
            there.close()

    return lay


def require_whole_and_true(found: Found) -> None:
    """Fail unless the ledger balances, kept pictures are intact, and times increase within their stated error."""
    assert found.kept
    assert (found.unbalanced_epochs, found.damaged, found.untrue, found.backwards) == (0, 0, 0, 0)


@pytest.mark.parametrize(("transport", "codec"), [("tcp", "h264"), ("udp", "h264"), ("udp", "hevc")])
async def test_only_intact_frames_are_kept_during_packet_losses_and_capture_recovers_afterwards(
    transport: str, codec: str, wire: BadWire, far: Lay
) -> None:
    with far(transport, codec) as there:
        async with there.rig.running():
            await flows(there.camera, FPS)
            kept = there.camera.kept

            def enough() -> bool:
                return wire.set(loss=LOSS, jitter_s=JITTER_S)["lost"] >= LOST and there.camera.kept > kept

            await until(enough, "enough losses, and frames all the same")
            counts = wire.set()
            assert await flows(there.camera, 1) <= CAP_S + STALL_S + BUSY_S
            await flows(there.camera, FPS)
        found = there.found()
    assert counts["overtaken"] > 0
    require_whole_and_true(found)
    assert set(found.withheld) == {"unusable"} or transport == "tcp"


async def test_reordered_rtp_packets_lose_no_frame(wire: BadWire, far: Lay) -> None:
    with far("udp") as there:
        async with there.rig.running():
            await flows(there.camera, FPS)
            wire.set(jitter_s=JITTER_S)
            await flows(there.camera, 3 * FPS)
            counts = wire.set()
        found = there.found()
    assert counts["overtaken"] > FPS
    require_whole_and_true(found)
    assert found.withheld == {}


async def test_a_dead_network_link_is_detected_and_capture_recovers_afterwards(wire: BadWire, far: Lay) -> None:
    with far("tcp") as there:
        async with there.rig.running():
            await flows(there.camera)
            epoch = there.camera.epoch
            wire.set(loss=1.0)
            await until(lambda: there.camera.state == "down", "the detection", STALL_S + BUSY_S)
            wire.set()
            took_s = await until(lambda: there.camera.epoch > epoch, "a new start")
            assert took_s + await flows(there.camera, 1) <= CAP_S + STALL_S + BUSY_S
        found = there.found()
    require_whole_and_true(found)
    assert found.behind_s < STALL_S / 2  # FFmpeg held the last frame back until the timeout
