"""Tests of the Faust member that need no broker: its app is never started."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from unittest.mock import AsyncMock

import pytest
from faust.types import TP
from prometheus_client import CollectorRegistry

from ingest.contract.topics import FRAMES
from ingest.kafka.log import LogRecord, TopicPartition
from ingest.kafka.settings import KafkaSettings
from stream.metrics import StreamMetrics
from stream.runner.acks import FetchNumber
from stream.runner.faust import FaustMember
from stream.runner.loop import Runner


class Owner(Runner):
    """An owner that records the assignments."""

    def __init__(self) -> None:
        self.calls: list[list[TopicPartition] | None] = []

    def deliver(self, records: Sequence[LogRecord], first: FetchNumber) -> None:
        raise AssertionError

    def safe_position(self, tp: TopicPartition) -> int | None:
        return None

    async def assigned(self, tps: Sequence[TopicPartition]) -> None:
        self.calls.append(list(tps))

    async def revoked(self) -> None:
        self.calls.append(None)

    def failed(self, error: BaseException) -> None:
        raise error


def member(owner: Owner) -> FaustMember:
    metrics = StreamMetrics(CollectorRegistry(), "echo")
    return FaustMember(owner, KafkaSettings(prefix="site."), metrics, group="echo", topics=(FRAMES,), client_id="c")


WITHOUT_WEB_CLIENT = """
import sys
from prometheus_client import CollectorRegistry
from ingest.kafka.settings import KafkaSettings
from stream.metrics import StreamMetrics
from stream.runner.faust import FaustMember
metrics = StreamMetrics(CollectorRegistry(), "echo")
FaustMember(None, KafkaSettings(), metrics, group="echo", topics=("frames",), client_id="c")
print([name for name in sys.modules if name.startswith("aiohttp")])
"""


def test_a_group_member_imports_no_web_client() -> None:
    command = [sys.executable, "-c", WITHOUT_WEB_CLIENT]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120.0)
    assert done.stdout.strip() == "[]"


async def test_a_group_member_joins_its_group_without_waiting_for_faust_tables(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tables = member(Owner())._app.tables
    monkeypatch.setattr(tables, "sleep", None)  # a call would fail
    monkeypatch.setattr(tables.recovery, "start", AsyncMock())
    await tables.on_start()
    await tables.wait_until_tables_registered()


async def test_a_group_member_is_rebalancing_from_the_revocation_to_the_next_assignment() -> None:
    owner = Owner()
    joined = member(owner)
    assigned = {TP("site.frames", 1), TP("site.frames", 0)}
    await joined._assigned(None, assigned)
    assert not joined.rebalancing
    await joined._revoked(None, assigned)
    assert not joined._app.rebalancing  # Faust's own flag may already be cleared
    assert joined.rebalancing
    await joined._assigned(None, assigned)
    assert not joined.rebalancing
    both = [TopicPartition(FRAMES, 0), TopicPartition(FRAMES, 1)]
    assert owner.calls == [both, None, both]
