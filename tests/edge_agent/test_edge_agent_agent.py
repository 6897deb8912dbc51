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
from ingest.kafka import KafkaSettings
from ingest.site import Site


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
