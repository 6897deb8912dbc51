"""Tests of an agent that follows the config topic of a real Kafka."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edge_agent.lastgood import LastGood
from ingest.contract.codec import decode
from ingest.contract.records import Heartbeat
from ingest.contract.topics import CONFIG, STATUS
from ingest.kafka import topicadmin
from ingest.kafka.log import Outgoing
from ingest.kafka.settings import KafkaSettings
from ingest.site import CameraConfig, GateConfig, SensorConfig
from ingest.site.topic.store import publish
from tests.edge_agent.test_kafka import AgentProcess, started, until

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(480)]

ALL = GateConfig(motion=False)
ROAD = CameraConfig(name="road", source="simulated:road", site="test", fps=20.0, gate=ALL)
DOCK = CameraConfig(name="dock", source="simulated:conveyor", site="test", fps=10.0, gate=ALL)


@pytest.fixture
async def agent(kafka: str, prefix: str, tmp_path: Path) -> AsyncIterator[AgentProcess]:
    agent = await started(kafka, prefix, tmp_path)
    yield agent
    await agent.stack.stop()
    await agent.log.close()
    settings = KafkaSettings(bootstrap=kafka, prefix=prefix)
    await topicadmin.remove(settings, prefix)


async def last_beat(agent: AgentProcess) -> Heartbeat:
    """Wait for a heartbeat with cameras and return the last one. Frames may arrive before the first heartbeat."""
    found: list[Heartbeat] = []

    async def has_beat() -> bool:
        end = (await agent.log.ends(STATUS))[0]
        beats = [decode(Heartbeat, r.value) async for r in agent.log.read(STATUS, 0, max(0, end - 20), end)]
        found[:] = [beat for beat in beats if beat.service == "agent" and beat.cameras]
        return bool(found)

    await until(has_beat, "a heartbeat with cameras")
    return found[-1]


async def running(agent: AgentProcess) -> dict[str, int]:
    """Return the epochs of the running cameras."""
    return {c.camera: c.epoch for c in (await last_beat(agent)).cameras if c.state == "running"}


async def test_cameras_are_added_changed_and_removed_without_a_restart_of_the_agent(
    agent: AgentProcess, tmp_path: Path
) -> None:
    async def runs(*names: str) -> bool:
        return set(await running(agent)) == set(names)

    owned = tmp_path / "owned"

    async def refuses(text: str) -> bool:
        return text in (await last_beat(agent)).reason

    await until(lambda: runs("road", "yard"), "the file's cameras run")
    await publish(agent.log, [ROAD, DOCK])
    await until(lambda: runs("road", "dock"), "the topic's cameras run")
    road, dock = (await running(agent))["road"], (await running(agent))["dock"]

    await publish(agent.log, [DOCK.model_copy(update={"fps": 5.0})])
    await until(lambda: has_new_epoch(agent, "dock", dock), "the changed camera begins anew")
    assert (await running(agent))["road"] == road  # the other camera was not restarted

    await agent.log.produce(Outgoing(CONFIG, 0, b'{"name": "road", "source": 7}', key=ROAD.key.encode()))
    await until(lambda: refuses("camera/road: source"), "the bad entry is reported on status")
    assert (await running(agent))["road"] == road  # the same epoch goes on

    run = SensorConfig(
        name="run", source="command:run", quantity="q", unit="1", site="test", options={"argv": ("touch", str(owned))}
    )
    await publish(agent.log, [ROAD, run], removed=[DOCK.key])
    await until(lambda: runs("road"), "the removed camera is gone")
    await until(lambda: refuses("sensor/run: source"), "the command without permission is reported on status")
    assert not owned.exists()
    await agent.more()
    await agent.require_no_holes()


async def test_an_agent_restarted_without_the_config_topic_uses_the_last_good_configuration(
    agent: AgentProcess, tmp_path: Path
) -> None:
    async def runs(*names: str) -> bool:
        return set(await running(agent)) == set(names)

    await publish(agent.log, [DOCK])
    await until(lambda: runs("dock"), "the topic's camera runs")
    kept = LastGood(tmp_path / "data" / "config.json")
    await until(lambda: holds(kept, DOCK.key), "the configuration is on disk")
    epoch, pid = (await running(agent))["dock"], agent.stack.pid("agent")
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    await until(lambda: has_new_epoch(agent, "dock", epoch), "it runs what it ran")
    assert "starting_with_last_good_configuration" in (tmp_path / "logs" / "agent.log").read_text()


async def holds(kept: LastGood, key: str) -> bool:
    return key in kept.load().entries


async def has_new_epoch(agent: AgentProcess, camera: str, epoch: int) -> bool:
    return (await running(agent)).get(camera, 0) > epoch
