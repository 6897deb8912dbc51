"""What a capture has in memory only while the disk is slow: little, for a kill takes it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from edge_agent.camera.child import QUEUE_FRAMES
from edge_agent.spool.schema import Row
from ingest.site import CameraConfig
from tests.peers.rig import Rig, until

FPS = 50
PIPES_BYTES = 256 * 1024
"""The kernel's pipe, twice the reader's limit, and what is being read."""


async def test_frames_that_the_disk_does_not_take_are_withheld_and_not_piled_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(tmp_path)
    source = {"name": "a", "source": "simulated:road", "fps": FPS, "options": {"frames": 4 * FPS}}
    camera = rig.add(CameraConfig.model_validate({**source, "gate": {"motion": False, "max_fps": 0.0}}))
    camera._truth_folder = tmp_path
    keep, disk_is_back = rig.spool.keep, asyncio.Event()

    async def slow(rows: Sequence[Row]) -> None:
        await disk_is_back.wait()
        await keep(rows)

    monkeypatch.setattr(rig.spool, "keep", slow)
    truth = tmp_path / "a.jsonl"
    async with rig.running():
        await until(lambda: truth.exists() and truth.read_text().count("\n") > 3 * FPS, "three seconds of frames")
        disk_is_back.set()
        await until(lambda: camera.state == "ended", "the end of the source")
    (epoch,) = rig.epochs("a").values()
    rig.close()
    epoch.require_whole()
    assert epoch.withheld["overload"] > FPS
    piled = [frame for frame in epoch.frames if frame.seq < epoch.accounts[0].first]
    assert sum(len(frame.image) for frame in piled[QUEUE_FRAMES + 1 :]) < PIPES_BYTES
