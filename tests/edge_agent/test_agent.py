"""Tests of the agent as a whole, without a broker."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from edge_agent import agent as module
from edge_agent.agent import Agent
from edge_agent.exceptions import SourceUnusable, SpoolError
from edge_agent.lastgood import LastGood, SavedConfiguration
from edge_agent.metrics import AgentMetrics
from edge_agent.send.sender import Sender
from edge_agent.spool.schema import Row
from edge_agent.spool.spool import Spool
from edge_agent.spool.store import SpoolStore
from ingest.contract.codec import decode
from ingest.contract.records import Heartbeat
from ingest.kafka.memorylog import MemoryLog
from ingest.kafka.settings import KafkaSettings
from ingest.site import CameraConfig, ConfigEntry, LinkConfig, PinConfig, SensorConfig, Site, SpoolConfig
from ingest.site.topic.store import publish


def fails(*args: object) -> None:
    raise SpoolError("the disk is gone")


async def fails_later(*args: object) -> None:
    fails()


@pytest.mark.parametrize(("owner", "method", "failing"), [(Sender, "run", fails_later), (SpoolStore, "depth", fails)])
async def test_the_agent_ends_when_its_sender_or_heartbeat_fails(
    owner: type, method: str, failing: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, method, failing)
    metrics = AgentMetrics(CollectorRegistry())
    agent = Agent(Site(name="test"), KafkaSettings(bootstrap="127.0.0.1:9"), tmp_path, metrics=metrics)
    with pytest.raises(SpoolError, match="the disk is gone"):
        await asyncio.wait_for(agent.run(asyncio.Event()), 60)


async def test_a_failing_camera_is_reported_as_down_and_its_capture_runs_end_cleanly(tmp_path: Path) -> None:
    """The capture child reports its last frame number before it exits, so no frame is lost."""
    metrics = AgentMetrics(CollectorRegistry())
    site = Site(name="test", cameras=(CameraConfig(name="gone", source=str(tmp_path / "no.mp4")),))
    agent = Agent(site, KafkaSettings(bootstrap="127.0.0.1:9"), tmp_path, metrics=metrics)
    stop = asyncio.Event()
    running = asyncio.create_task(agent.run(stop))
    epochs: set[int] = set()
    async with asyncio.timeout(60):
        while len(epochs) < 2:  # a camera begins an epoch only after the end of the previous one is in the spool
            await asyncio.sleep(0.01)
            epochs |= {camera.epoch for camera in agent._fleet.cameras if camera.epoch}
    (camera,) = agent._fleet.cameras
    assert camera.state == "down"
    assert "expected a video file" in camera.reason
    stop.set()
    await asyncio.sleep(0)
    running.cancel()  # there is no broker to flush to
    await asyncio.gather(running, return_exceptions=True)
    spool = SpoolStore(tmp_path / "spool.db", "agent")
    ends = [end for row in spool.others(0, 100) for end in decode(Heartbeat, row.record).ended]
    spool.close()
    assert ends
    assert {(end.last, end.clean) for end in ends} == {(-1, True)}


NOWHERE = KafkaSettings(bootstrap="127.0.0.1:9")
METER = SensorConfig(
    name="a", source="modbus:/dev/ttyS9", quantity="q", unit="u", site="test", options={"address": 1, "baud": 9600}
)
OTHER_BAUD = METER.model_copy(update={"name": "b", "options": {"address": 1, "baud": 19200}})
YARD = CameraConfig(name="yard", source="device:99", site="test")


def keep(folder: Path, *entries: ConfigEntry) -> None:
    LastGood(folder / "config.json").save(
        SavedConfiguration({entry.key: entry for entry in entries}, topic_holds=True)
    )


def make(site: Site, folder: Path) -> Agent:
    return Agent(site, NOWHERE, folder, metrics=AgentMetrics(CollectorRegistry()))


async def ended(running: asyncio.Task[None]) -> None:
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_spooled_rows_of_a_removed_camera_still_expire(tmp_path: Path) -> None:
    spool = SpoolStore(tmp_path / "spool.db", "agent")
    epoch = spool.begin_epoch("gone", "frame", 1)
    two_days_ago_ns = time.time_ns() - 2 * 86_400 * 10**9
    spool.keep([Row("frame", "gone", epoch, 0, two_days_ago_ns, b"x")])
    spool.close()
    agent = make(Site(name="test"), tmp_path)
    running = asyncio.create_task(agent.run(asyncio.Event()))
    async with asyncio.timeout(60):
        while not agent._metrics.expired.labels("gone")._value.get():
            await asyncio.sleep(0.05)
    await ended(running)


async def test_the_limits_of_each_spool_are_set_before_rows_of_the_last_run_are_sent_or_expire(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[SpoolConfig | None] = []

    async def run(*_: object) -> None:
        limits.append(agent._spool._bounds["frame"].get("yard"))
        fails()

    monkeypatch.setattr(Sender, "run", run)
    week = SpoolConfig(max_age_s=7 * 86_400.0)
    agent = make(Site(name="test", cameras=(YARD.model_copy(update={"spool": week}),)), tmp_path)
    with pytest.raises(SpoolError, match="the disk is gone"):
        await agent.run(asyncio.Event())
    assert limits == [week]


async def test_unusable_sensors_of_the_last_good_configuration_do_not_stop_its_cameras(
    tmp_path: Path,
) -> None:
    keep(tmp_path, YARD, METER, OTHER_BAUD, PinConfig(name="yard", partition=2))
    agent = make(Site(name="test"), tmp_path)
    assert (agent._desired.running.cameras, agent._desired.running.sensors) == ((YARD,), ())
    assert "share the device modbus:/dev/ttyS9" in agent._desired.refused[0]
    assert agent._pins == {"yard": 2}  # the pins are known before rows of the last run are sent
    with pytest.raises(SourceUnusable, match="share the device modbus"):
        make(Site(name="test", sensors=(METER, OTHER_BAUD)), tmp_path / "other")


async def test_an_agent_reads_which_cameras_are_pinned_to_a_partition_before_it_sends_the_first_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = MemoryLog(4)
    await publish(log, [PinConfig(name="yard", partition=3)])
    monkeypatch.setattr("edge_agent.agent.KafkaLog", lambda *_: log)
    agent = make(Site(name="test"), tmp_path)
    await agent._link._refresh_pins()  # type: ignore[attr-defined]  # as ``open`` does before the first record
    assert agent._link._pins == {"yard": 3}  # type: ignore[attr-defined]


async def test_an_agent_behind_a_gateway_ignores_saved_config_entries_and_logs_that_it_follows_no_config_topic(
    tmp_path: Path,
) -> None:
    keep(tmp_path, YARD)
    agent = make(Site(name="test", link=LinkConfig(kind="https", url="https://127.0.0.1:9")), tmp_path)
    assert agent._desired.running.cameras == ()
    with capture_logs() as lines:
        running = asyncio.create_task(agent.run(asyncio.Event()))
        async with asyncio.timeout(60):
            while not any(line["event"] == "config_topic_not_followed" for line in lines):
                await asyncio.sleep(0.01)
        await ended(running)


async def test_spool_size_limits_are_enforced_while_the_link_blocks_the_heartbeat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: asyncio.Queue[None] = asyncio.Queue()
    plain = Spool.maintain

    async def maintain(self: Spool) -> None:
        calls.put_nowait(None)
        await plain(self)

    async def publish(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(module, "BEAT_S", 0.01)
    monkeypatch.setattr(Spool, "maintain", maintain)
    monkeypatch.setattr(Sender, "publish", publish)
    running = asyncio.create_task(make(Site(name="test"), tmp_path).run(asyncio.Event()))
    async with asyncio.timeout(60):
        for _ in range(3):
            await calls.get()
    await ended(running)
