"""Tests of the agent with a real Kafka: every frame is accounted for after kills and outages."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from deploy.local.kafka.broker import Broker
from deploy.local.supervisor import ServiceSpec, Supervisor
from ingest.contract import headers as h
from ingest.contract.identity import LATE, LIVE
from ingest.contract.topics import FRAMES, FRAMES_LATE, READINGS
from ingest.kafka import topicadmin
from ingest.kafka.kafkalog import KafkaLog
from ingest.kafka.settings import KafkaSettings
from ingest.ledger.auditor import audit
from ingest.runtime.clock import Deadline

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(480)]

SITE = """
name = "test"

[[cameras]]
name = "road"
source = "simulated:road"
fps = 20.0
gate = { motion = false }
spool = { late_after_s = 2.0 }

[[cameras]]
name = "yard"
source = "simulated:yard"
fps = 10.0

[[sensors]]
name = "cabinet"
source = "simulated:temperature"
quantity = "temperature"
unit = "Cel"
rate_hz = 50.0
max_delay_s = 0.5
"""


class AgentProcess:
    """Agent process that is restarted after a kill, and the records that the agent wrote to Kafka."""

    def __init__(self, settings: KafkaSettings, folder: Path) -> None:
        (folder / "site.toml").write_text(SITE)
        self.log = KafkaLog(settings, "test")
        self.stack = Supervisor([], folder / "logs")
        argv = ["agent", "run", f"--site={folder / 'site.toml'}", f"--data={folder / 'data'}"]
        self.spec = ServiceSpec("agent", [sys.executable, "-m", "deploy.cli.app", *argv], settings.to_env())

    async def frames(self, topic: str = FRAMES) -> int:
        return sum((await self.log.ends(topic)).values())

    async def more(self, count: int = 30) -> None:
        wanted = await self.frames() + count
        await until(lambda: self._has(FRAMES, wanted), f"{count} more frames")

    async def _has(self, topic: str, wanted: int) -> bool:
        return await self.frames(topic) >= wanted

    async def order(self, topic: str) -> dict[str, list[tuple[int, int]]]:
        """Return the (epoch, seq) pairs of each camera in log order, without duplicates."""
        found: dict[str, list[tuple[int, int]]] = {}
        for partition, end in (await self.log.ends(topic)).items():
            async for record in self.log.read(topic, partition, 0, end):
                (frame,) = h.frames_of(record.headers)
                seen = found.setdefault(frame.camera, [])
                if (frame.epoch, frame.seq) not in seen:
                    seen.append((frame.epoch, frame.seq))
        return found

    async def new_epoch(self, camera: str, count: int) -> None:
        """Wait until the log has frames of ``count`` epochs of a camera."""
        await until(lambda: self._has_epochs(camera, count), f"frames of epoch {count} of {camera}")

    async def _has_epochs(self, camera: str, count: int) -> bool:
        return len({epoch for epoch, _ in (await self.order(FRAMES)).get(camera, [])}) >= count

    async def require_no_holes(self) -> None:
        balance = await audit(self.log, wait_s=0)
        lines = [e for e in balance.totals.examples if "has no end" not in e]  # no engine node runs in this test
        assert not lines, balance.totals.to_dict()
        assert balance.sensors is not None
        assert balance.sensors.balanced, balance.sensors.totals.to_dict()
        assert balance.sensors.totals.delivered > 0
        assert balance.totals.captured > 0
        assert balance.totals.captured == sum(balance.totals.withheld.values()) + balance.totals.delivered
        for topic in (FRAMES, FRAMES_LATE):
            for camera, order in (await self.order(topic)).items():
                assert order == sorted(order), f"{camera} on {topic}"


async def until(done: Callable[[], object], what: str, seconds: float = 120.0) -> None:
    deadline = Deadline.after(seconds)
    while not await done():  # type: ignore[misc]
        assert not deadline.passed, f"{what} did not happen within {seconds:.0f} s"
        await asyncio.sleep(0.1)


async def started(bootstrap: str, prefix: str, folder: Path) -> AgentProcess:
    settings = KafkaSettings(bootstrap=bootstrap, prefix=prefix)
    await topicadmin.create(settings, partitions=2)
    agent = AgentProcess(settings, folder)
    await agent.stack.add(agent.spec)
    await agent.more()
    return agent


async def test_kills_of_agent_and_capture_processes_leave_no_unaccounted_frame(
    kafka: str, prefix: str, tmp_path: Path
) -> None:
    agent = await started(kafka, prefix, tmp_path)
    try:
        for epochs in (2, 4):  # new frames may come from the spool, so wait for the new epoch
            pid = agent.stack.pid("agent")
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            await agent.new_epoch("road", epochs)
            children = psutil.Process(agent.stack.pid("agent")).children(recursive=True)
            for child in children:
                if "edge_agent.camera.child" in " ".join(child.cmdline()):
                    child.kill()
            await agent.new_epoch("road", epochs + 1)
        assert await agent.stack.stop_one("agent", 40)
        epochs = {epoch for epoch, _ in (await agent.order(FRAMES))["road"]}
        assert len(epochs) == 5
        await agent.require_no_holes()
        balance = await audit(agent.log, wait_s=0)
        assert balance.totals.unclean < 200  # the number of frames in memory is bounded
        assert sum((await agent.log.ends(READINGS)).values()) > 3
    finally:
        await agent.stack.stop()
        await agent.log.close()


async def test_the_backlog_of_a_kafka_outage_is_sent_on_the_late_lane(
    own_broker: Broker, prefix: str, tmp_path: Path
) -> None:
    agent = await started(own_broker.bootstrap, prefix, tmp_path)
    try:
        await asyncio.to_thread(own_broker.kill)
        captured = Deadline.after(8.0)

        async def passed() -> bool:
            return captured.passed

        await until(passed, "the outage")
        await asyncio.to_thread(own_broker.start)
        await agent.more(60)
        assert await agent.stack.stop_one("agent", 60)
        await agent.require_no_holes()
        late = (await agent.order(FRAMES_LATE)).get("road", [])
        assert len(late) > 20
        lanes = {
            h.lane_of(r.headers, t)
            for t in (FRAMES, FRAMES_LATE)
            for p, end in (await agent.log.ends(t)).items()
            async for r in agent.log.read(t, p, 0, end)
        }
        assert lanes == {LIVE, LATE}
    finally:
        await agent.stack.stop()
        await agent.log.close()
