"""Tests of the Faust member that need no broker: its app is never started."""

from __future__ import annotations

from collections.abc import Sequence

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

    def deliver(self, record: LogRecord, number: FetchNumber) -> None:
        raise AssertionError

    def safe_position(self, tp: TopicPartition) -> int | None:
        return None

    async def assigned(self, tps: Sequence[TopicPartition]) -> None:
        self.calls.append(list(tps))

    async def revoked(self) -> None:
        self.calls.append(None)

    def failed(self, error: BaseException) -> None:
        raise error


async def test_a_group_member_is_rebalancing_from_the_revocation_to_the_next_assignment() -> None:
    owner = Owner()
    metrics = StreamMetrics(CollectorRegistry(), "echo")
    member = FaustMember(owner, KafkaSettings(prefix="site."), metrics, group="echo", topics=(FRAMES,), client_id="c")
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
