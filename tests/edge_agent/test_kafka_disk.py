"""Test of an agent whose disk other programs fill: it keeps sending and accounts for refused frames."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.local.kafka.broker import Broker
from ingest.contract.codec import decode
from ingest.contract.records import Heartbeat
from ingest.contract.topics import FRAMES_LATE, STATUS
from ingest.kafka import topicadmin
from ingest.kafka.settings import KafkaSettings
from ingest.ledger.auditor import audit
from tests.edge_agent.smalldisk import SmallDisk
from tests.edge_agent.test_kafka import AgentProcess, until

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(480)]

SPOOL = """
[spool]
min_free_bytes = 0
reserve_bytes = 8388608
"""


@pytest.fixture
def small(tmp_path: Path) -> Iterator[SmallDisk]:
    with SmallDisk(tmp_path / "data", size_mb=64) as small:
        yield small


class FullAgent(AgentProcess):
    """An agent whose spool is on a small disk."""

    def __init__(self, settings: KafkaSettings, folder: Path) -> None:
        super().__init__(settings, folder)
        site = folder / "site.toml"
        site.write_text(site.read_text() + SPOOL)
        self.logfile = folder / "logs" / "agent.log"

    async def notices(self) -> list[str]:
        """Return the agent's notices on ``status``."""
        end = (await self.log.ends(STATUS))[0]
        beats = [decode(Heartbeat, r.value) async for r in self.log.read(STATUS, 0, 0, end)]
        return [beat.reason for beat in beats if beat.reason and beat.waiting is None]

    async def says(self, text: str) -> bool:
        return text in self.logfile.read_text()


async def test_an_agent_with_a_full_disk_keeps_sending_and_accounts_for_refused_frames(
    own_broker: Broker, prefix: str, tmp_path: Path, small: SmallDisk
) -> None:
    settings = KafkaSettings(bootstrap=own_broker.bootstrap, prefix=prefix)
    await topicadmin.create(settings, partitions=2)
    agent = FullAgent(settings, tmp_path)
    try:
        await agent.stack.add(agent.spec)
        await agent.more()
        await asyncio.to_thread(own_broker.kill)
        small.fill(leave_bytes=8_000_000)  # more rows than the send window, so that the others are sent late
        await until(lambda: agent.says("spool_disk_refuses_writes"), "the disk is full", 180.0)
        await until(lambda: agent.says("link_lost"), "the link is lost")
        await asyncio.to_thread(own_broker.start)
        await until(lambda: agent._has(FRAMES_LATE, 10), "the backlog is sent from a full disk")
        assert agent.stack.restarts()["agent"] == 0
        small.empty()
        await until(lambda: agent.says("spool_disk_accepts_writes_again"), "room has come back")
        await agent.more()
        assert await agent.stack.stop_one("agent", 60)
        await agent.require_no_holes()
        balance = await audit(agent.log, wait_s=0)
        assert balance.totals.withheld["overload"] > 20
        assert balance.totals.unclean == 0
        notices = [text.split(":")[0].split(" after")[0] for text in await agent.notices()]
        # on a busy machine, sent rows may make room for a moment before the filler is gone
        assert notices
        assert notices == ["disk full", "disk is back"] * (len(notices) // 2)
    finally:
        await agent.stack.stop()
        await agent.log.close()
