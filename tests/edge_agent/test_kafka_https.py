"""Test of an agent that reaches Kafka only through an HTTPS gateway, which is unreachable for a while."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import time
from pathlib import Path

import pytest

from edge_agent.spool.schema import WAITS
from ingest.contract.topics import FRAMES_LATE, READINGS, STATUS
from ingest.kafka import topicadmin
from ingest.kafka.settings import KafkaSettings
from ingest.ledger.auditor import audit
from tests.edge_agent.test_kafka import AgentProcess, until
from tests.peers.certificates import Authority
from tests.peers.gateway import TestGateway

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(480)]

LATE_FRAMES = 10
"""Number of frames that become late before the gateway is reachable again."""

LINK = """
[link]
kind = "https"
url = "{url}"
ca_file = "{ca}"
token_file = "{token}"
"""


async def has_late_frames(spool: Path, count: int) -> bool:
    """Return whether a spool has at least ``count`` frames that were never sent and are too old for the live lane."""
    with contextlib.closing(sqlite3.connect(f"file:{spool}?mode=ro", uri=True)) as database:
        query = "SELECT count(*) FROM outbox WHERE kind = 'frame' AND lane = ? AND late_ns <= ?"
        return int(database.execute(query, (WAITS, time.time_ns())).fetchone()[0]) >= count


async def test_an_agent_without_access_to_kafka_delivers_through_a_gateway(
    kafka: str, prefix: str, tmp_path: Path
) -> None:
    settings = KafkaSettings(bootstrap=kafka, prefix=prefix)
    await topicadmin.create(settings, partitions=2)
    authority = Authority(tmp_path)
    signed, token = authority.sign("gateway"), tmp_path / "token"
    token.write_text("a token")
    agent = AgentProcess(settings, tmp_path)
    agent.spec.env["SIGHTLINE_KAFKA"] = "127.0.0.1:9"  # no broker listens there
    try:
        async with TestGateway(settings, signed.certificate, signed.key, "a token") as gateway:
            link = LINK.format(url=gateway.url, ca=authority.file, token=token)
            site = tmp_path / "site.toml"
            site.write_text(site.read_text() + link)
            await agent.stack.add(agent.spec)
            await agent.more()
            pid = agent.stack.pid("agent")
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            await agent.more()
            gateway.answers_lost = 2  # the gateway writes the records, but its responses are lost
            await agent.more()
            gateway.busy = True
            await until(
                lambda: has_late_frames(tmp_path / "data" / "spool.db", LATE_FRAMES), "late frames in the spool"
            )
            gateway.busy = False
            await until(lambda: agent._has(FRAMES_LATE, LATE_FRAMES), "the backlog on the late lane")
            assert await agent.stack.stop_one("agent", 60)
        await agent.require_no_holes()
        balance = await audit(agent.log, wait_s=0)
        assert balance.totals.spooled == 0
        assert sum((await agent.log.ends(READINGS)).values()) > 3
        assert sum((await agent.log.ends(STATUS)).values()) > 4
    finally:
        await agent.stack.stop()
        await agent.log.close()
