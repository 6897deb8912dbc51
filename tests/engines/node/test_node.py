"""What the node does when partitions come and go. Its consumer is a stand-in; the real one is in chaos/ and e2e/."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest
from aiokafka import TopicPartition as KafkaPartition
from prometheus_client import CollectorRegistry

from engines.metrics import NodeMetrics
from engines.node import node as nodes
from engines.node.node import Node
from engines.node.partition import OwnedPartition
from ingest.contract.topics import BATCHES, BATCHES_LATE
from ingest.exceptions import LogUnavailable
from ingest.kafka.log import TopicPartition
from ingest.kafka.memorylog import MemoryLog
from ingest.kafka.settings import KafkaSettings

ONE, TWO = KafkaPartition("sightline.batches", 0), KafkaPartition("sightline.batches.late", 1)


class Consumer:
    """Stands in for the group: never gives a record, and remembers what it was told."""

    def __init__(self) -> None:
        self.held: set[TopicPartition] = set()
        self.begun: dict[TopicPartition, int] = {}
        self.stopped = False

    def tp(self, kafka_tp: KafkaPartition) -> TopicPartition:
        return TopicPartition(kafka_tp.topic.removeprefix("sightline."), kafka_tp.partition)

    def hold(self, tps: Iterable[TopicPartition]) -> None:
        self.held = set(tps)

    def begin(self, tp: TopicPartition, position: int) -> None:
        self.begun[tp] = position

    def throttle(self, *_: object) -> None: ...

    async def start(self, _: object) -> None: ...

    async def next(self) -> list[object]:
        await asyncio.Event().wait()
        return []

    async def stop(self) -> None:
        self.stopped = True


@pytest.fixture
async def node() -> Node:
    made = Node(KafkaSettings(), {}, instances=1, metrics=NodeMetrics(CollectorRegistry()))
    await made._intake.stop()
    made._intake = Consumer()  # type: ignore[assignment]
    made._log = MemoryLog(2)  # type: ignore[assignment]
    made._heartbeats.produce = made._log.produce
    return made


async def ended(node: Node) -> None:
    async with asyncio.timeout(5):
        await node.run(asyncio.Event())


async def test_partitions_are_held_until_they_are_taken_over(node: Node) -> None:
    await node.on_partitions_assigned([ONE, TWO])
    assert node._intake.held == {TopicPartition(BATCHES, 0), TopicPartition(BATCHES_LATE, 1)}  # type: ignore[attr-defined]
    assert node._opening is not None
    await node._opening
    assert node._intake.begun == {TopicPartition(BATCHES, 0): 0, TopicPartition(BATCHES_LATE, 1): 0}  # type: ignore[attr-defined]
    await node.on_partitions_revoked([ONE, TWO])
    assert node._owned == {}


@pytest.mark.parametrize("error", [LogUnavailable("gone"), KeyError("results[7]"), OSError("socket")])
async def test_a_takeover_that_fails_ends_the_node(
    node: Node, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    async def fails(*_: object) -> list[OwnedPartition]:
        raise error

    monkeypatch.setattr(nodes, "take_over", fails)
    await node.on_partitions_assigned([ONE])
    with pytest.raises(type(error)):
        await ended(node)
    assert node._intake.stopped  # type: ignore[attr-defined]


async def test_a_takeover_is_given_up_when_the_partitions_go(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, given_up = asyncio.Event(), asyncio.Event()

    async def endless(*_: object) -> list[OwnedPartition]:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            given_up.set()
        return []

    monkeypatch.setattr(nodes, "take_over", endless)
    await node.on_partitions_assigned([ONE])
    await begun.wait()
    await node.on_partitions_revoked([ONE])
    assert given_up.is_set()
    assert node._failure is None


async def test_one_slot_that_cannot_be_closed_does_not_keep_the_others_open(node: Node) -> None:
    await node.on_partitions_assigned([ONE, TWO])
    assert node._opening is not None
    await node._opening
    closed: list[str] = []

    class Stubborn:
        async def close(self) -> None:
            closed.append("stubborn")
            raise OSError("no")

    node._owned[TopicPartition(BATCHES, 0)]._writer = Stubborn()  # type: ignore[assignment]
    await node.on_partitions_revoked([ONE, TWO])
    assert (closed, node._owned) == (["stubborn"], {})
    with pytest.raises(OSError, match="no"):
        await ended(node)


async def test_a_heartbeat_that_is_not_written_stops_nothing(node: Node) -> None:
    tries = 0

    async def produce(_: object) -> None:
        nonlocal tries
        tries += 1
        raise LogUnavailable("gone")

    node._heartbeats.produce = produce
    stop = asyncio.Event()
    asyncio.get_running_loop().call_later(0.05, stop.set)
    async with asyncio.timeout(5):
        await node.run(stop)
    assert tries >= 2  # the first one, and that it has stopped


async def test_slots_that_wait_have_one_alarm_for_the_first_of_them(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Waits:
        def __init__(self, pause_s: float) -> None:
            self.pause_s = pause_s

        def due(self, now_s: float, _: float) -> float:
            return now_s + self.pause_s

    loop, alarms = asyncio.get_running_loop(), []
    plain = loop.call_later
    monkeypatch.setattr(loop, "call_later", lambda *args: alarms.append(plain(*args)) or alarms[-1])
    node._owned = {TopicPartition(BATCHES, n): Waits(60.0 + n) for n in range(5)}  # type: ignore[misc]
    for _ in range(10):
        node._start_what_can()
    (alarm,) = [each for each in alarms if not each.cancelled()]
    assert alarm.when() - loop.time() == pytest.approx(60.0, abs=1.0)
    node._wake_after(None)
    assert alarm.cancelled()


async def test_what_ends_the_reading_ends_the_node(node: Node) -> None:
    async def breaks() -> list[object]:
        raise RuntimeError("codec")

    node._intake.next = breaks  # type: ignore[method-assign, assignment]
    with pytest.raises(RuntimeError, match="codec"):
        await ended(node)
