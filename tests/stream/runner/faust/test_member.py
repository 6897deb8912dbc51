"""Tests of the Faust member that need no broker: its app is never started."""

from __future__ import annotations

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


def _member(owner: Owner) -> FaustMember:
    metrics = StreamMetrics(CollectorRegistry(), "echo")
    return FaustMember(owner, KafkaSettings(prefix="site."), metrics, group="echo", topics=(FRAMES,), client_id="c")


async def test_a_member_joins_its_group_without_a_wait_for_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    tables = _member(Owner())._app.tables
    monkeypatch.setattr(tables, "sleep", None)  # a call would fail
    monkeypatch.setattr(tables.recovery, "start", AsyncMock())
    await tables.on_start()
    await tables.wait_until_tables_registered()


async def test_a_group_member_is_rebalancing_from_the_revocation_to_the_next_assignment() -> None:
    owner = Owner()
    member = _member(owner)
    assigned = {TP("site.frames", 1), TP("site.frames", 0)}
    await member._assigned(None, assigned)
    assert not member.rebalancing
    await member._revoked(None, assigned)
    assert not member._app.rebalancing  # Faust's own flag may already be cleared
    assert member.rebalancing
    await member._assigned(None, assigned)
    assert not member.rebalancing
    both = [TopicPartition(FRAMES, 0), TopicPartition(FRAMES, 1)]
    assert owner.calls == [both, None, both]
