"""Tests that a capture buffers few frames in memory while the disk is blocked: a kill would lose buffered frames."""

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
"""Bytes on their way to the agent: kernel pipe (64 KiB), reader (twice its limit, 128 KiB), and one record."""


async def test_capture_withholds_frames_instead_of_buffering_while_the_disk_is_blocked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(tmp_path)
    source = {"name": "a", "source": "simulated:road", "fps": FPS, "options": {"frames": 4 * FPS}}
    camera = rig.add(
        CameraConfig.model_validate({**source, "gate": {"motion": False, "max_fps": 0.0}}), truth_folder=tmp_path
    )
    keep, disk_is_back = rig.spool.keep, asyncio.Event()

    async def blocked(rows: Sequence[Row]) -> None:
        await disk_is_back.wait()
        await keep(rows)

    monkeypatch.setattr(rig.spool, "keep", blocked)
    truth = tmp_path / "a.jsonl"
    async with rig.running():
        await until(lambda: truth.exists() and truth.read_text().count("\n") > 3 * FPS, "three seconds of frames")
        disk_is_back.set()
        await until(lambda: camera.state == "ended", "the end of the source")
    (epoch,) = rig.epochs("a").values()
    rig.close()
    epoch.require_whole()
    assert epoch.withheld["overload"] > FPS
    buffered = [frame for frame in epoch.frames if frame.seq < epoch.accounts[0].first]
    assert sum(len(frame.image) for frame in buffered[QUEUE_FRAMES + 1 :]) < PIPES_BYTES
