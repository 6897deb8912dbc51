"""The agent as a whole, without a broker: what ends one of its parts ends all of it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from edge_agent.agent import Agent
from edge_agent.exceptions import SpoolError
from edge_agent.metrics import AgentMetrics
from edge_agent.send.sender import Sender
from edge_agent.spool.spool import Spool
from ingest.codec import decode
from ingest.kafka import KafkaSettings
from ingest.records import Heartbeat
from ingest.site import CameraConfig, Site


def fails(*args: object) -> None:
    raise SpoolError("the disk is gone")


async def fails_later(*args: object) -> None:
    fails()


@pytest.mark.parametrize(("owner", "method", "failing"), [(Sender, "run", fails_later), (Spool, "depth", fails)])
async def test_no_agent_goes_on_without_its_sender_or_its_heartbeat(
    owner: type, method: str, failing: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, method, failing)
    metrics = AgentMetrics(CollectorRegistry())
    agent = Agent(Site(name="test"), KafkaSettings(bootstrap="127.0.0.1:9"), tmp_path, metrics=metrics)
    with pytest.raises(SpoolError, match="the disk is gone"):
        await asyncio.wait_for(agent.run(asyncio.Event()), 10)


async def test_a_camera_that_fails_is_down_and_its_epochs_are_clean(tmp_path: Path) -> None:
    """Nothing was lost to it: the capture child said how far it had come before it went."""
    metrics = AgentMetrics(CollectorRegistry())
    site = Site(name="test", cameras=(CameraConfig(name="gone", source=str(tmp_path / "no.mp4")),))
    agent = Agent(site, KafkaSettings(bootstrap="127.0.0.1:9"), tmp_path, metrics=metrics)
    stop = asyncio.Event()
    running = asyncio.create_task(agent.run(stop))
    async with asyncio.timeout(30):
        while not (agent._fleet.cameras and agent._fleet.cameras[0].state == "down"):
            await asyncio.sleep(0.05)
    (camera,) = agent._fleet.cameras
    assert "expected a video file" in camera.reason
    stop.set()
    await asyncio.sleep(0)
    running.cancel()  # there is no broker to flush to
    await asyncio.gather(running, return_exceptions=True)
    spool = Spool(tmp_path / "spool.db")
    ends = [end for row in spool.others(0, 100) for end in decode(Heartbeat, row.record).ended]
    spool.close()
    assert ends
    assert {(end.last, end.clean) for end in ends} == {(-1, True)}
