"""Tests of the node with a fake consumer, while partitions are assigned and revoked.

Tests with Kafka are in chaos/ and e2e/.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

import pytest
from aiokafka import TopicPartition as KafkaPartition
from prometheus_client import CollectorRegistry

from engines.exceptions import ModelUnknown
from engines.metrics import NodeMetrics
from engines.node import takeover
from engines.node.node import Node, patience
from engines.node.pipelines import LiveModels
from engines.node.serving import ServedModel
from engines.node.takeover import OwnedPartition, take_over
from ingest.contract.groups import ENGINES
from ingest.contract.records import Box
from ingest.contract.topics import BATCHES, BATCHES_LATE, DEADLETTER, RESULTS
from ingest.exceptions import LogUnavailable
from ingest.kafka.log import Log, LogRecord, Outgoing, Position, TopicPartition, Writer
from ingest.kafka.memorylog import MemoryLog
from ingest.kafka.position import StartPosition
from ingest.site import PipelineConfig
from tests.engines.node.batches import item, record
from tests.engines.node.fakesource import CARS, FakeIntake, FakeSource, configured, running, until_written
from tests.engines.node.test_takeover import put, written

ONE, TWO = KafkaPartition("sightline.batches", 0), KafkaPartition("sightline.batches.late", 1)
OTHER = KafkaPartition("sightline.batches", 1)
TP_ONE, TP_TWO = TopicPartition(BATCHES, 0), TopicPartition(BATCHES_LATE, 1)
TakeOver = Callable[[Log, Sequence[TopicPartition]], Awaitable[list[OwnedPartition]]]


@pytest.fixture
async def intake() -> FakeIntake:
    return FakeIntake()


def no_models() -> LiveModels:
    class NoSource:
        def version(self, pipeline: PipelineConfig) -> str:
            raise ModelUnknown(pipeline.model)

        def canary(self, pipeline: PipelineConfig) -> None:
            return None

        def make(self, pipeline: PipelineConfig) -> ServedModel:
            raise ModelUnknown(pipeline.model)

        def stand_in(self, pipeline: PipelineConfig) -> ServedModel | None:
            return None

    return LiveModels(NoSource(), NodeMetrics(CollectorRegistry()), lambda: 0.0)


def make(intake: FakeIntake, log: Log | None = None, take_over: TakeOver = take_over) -> Node:
    metrics = NodeMetrics(CollectorRegistry())
    return Node(log or MemoryLog(2), intake, no_models(), concurrency=1, metrics=metrics, take_over=take_over)


async def ended(node: Node, stop: asyncio.Event | None = None) -> None:
    async with asyncio.timeout(60):
        await node.run(stop or asyncio.Event())


async def test_partitions_stay_paused_until_the_node_has_taken_over_the_partitions(intake: FakeIntake) -> None:
    node = make(intake)
    await node.on_partitions_assigned([ONE, TWO])
    assert intake.held == {TP_ONE, TP_TWO}
    assert intake.begun == {}
    async with asyncio.timeout(60):
        await intake.all_begun.wait()
    assert intake.begun == {TP_ONE: 0, TP_TWO: 0}
    assert node.figures()["partitions"] == 2
    await node.on_partitions_revoked([ONE, TWO])
    assert node.figures()["partitions"] == 0


async def test_a_node_is_ready_once_it_has_joined_its_group_and_taken_over_its_partitions(intake: FakeIntake) -> None:
    node = make(intake)
    assert node.unready_reason() == "the consumer group engines has not been joined"
    await node.on_partitions_assigned([ONE])
    assert node.unready_reason() == "partitions are being taken over"
    async with asyncio.timeout(60):
        await intake.all_begun.wait()
        while node.unready_reason():
            await asyncio.sleep(0)
    await node.on_partitions_revoked([ONE])


@pytest.mark.parametrize("error", [LogUnavailable("gone"), KeyError("results[7]"), OSError("socket")])
async def test_a_failed_takeover_ends_the_node(intake: FakeIntake, error: Exception) -> None:
    async def fails(*_: object) -> list[OwnedPartition]:
        raise error

    node = make(intake, take_over=fails)
    await node.on_partitions_assigned([ONE])
    with pytest.raises(type(error)):
        await ended(node)
    assert intake.stopped


async def test_a_partition_revoked_during_its_takeover_cancels_the_takeover_without_an_error(
    intake: FakeIntake,
) -> None:
    begun, cancelled, stop = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def endless(*_: object) -> list[OwnedPartition]:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return []

    node = make(intake, take_over=endless)
    await node.on_partitions_assigned([ONE])
    await begun.wait()
    await node.on_partitions_revoked([ONE])
    assert cancelled.is_set()
    asyncio.get_running_loop().call_later(0.05, stop.set)
    await ended(node, stop)  # this raises an error if the cancellation counted as a failure


class StubbornLog(MemoryLog):
    """A log whose writer for the first partition of ``batches`` fails to close."""

    def __init__(self) -> None:
        super().__init__(2)
        self.closed: list[str] = []

    async def writer(self, transactional_id: str) -> Writer:
        log, stubborn = self, transactional_id == "engines-batches-0"

        class ClosingWriter:
            async def write(self, *_: object) -> None: ...

            async def close(self) -> None:
                log.closed.append(transactional_id)
                if stubborn:
                    raise OSError("no")

        return ClosingWriter()


async def test_all_other_writers_of_a_node_are_closed_if_one_writer_fails_to_close(intake: FakeIntake) -> None:
    log = StubbornLog()
    node = make(intake, log)
    await node.on_partitions_assigned([ONE, TWO])
    async with asyncio.timeout(60):
        await intake.all_begun.wait()
    await node.on_partitions_revoked([ONE, TWO])
    assert sorted(log.closed) == ["engines-batches-0", "engines-batches.late-1"]
    assert node.figures()["partitions"] == 0
    with pytest.raises(OSError, match="no"):
        await ended(node)


class SilentLog(MemoryLog):
    """A log that accepts no records, and counts the attempts to write."""

    attempts = 0

    async def produce(self, record: Outgoing) -> Position:
        self.attempts += 1
        raise LogUnavailable("gone")


async def test_a_heartbeat_that_cannot_be_written_does_not_end_the_node(intake: FakeIntake) -> None:
    log, stop = SilentLog(2), asyncio.Event()
    asyncio.get_running_loop().call_later(0.05, stop.set)
    await ended(make(intake, log), stop)
    assert log.attempts >= 2  # the first heartbeat, and the heartbeat of the stopped node


async def test_partitions_with_results_to_write_share_one_timer_at_the_earliest_due_time(
    intake: FakeIntake, monkeypatch: pytest.MonkeyPatch
) -> None:
    class WaitingPartition:
        """A partition whose settled jobs are due after a pause."""

        start, in_flight, uncommitted = StartPosition(0), 0, 0

        def __init__(self, tp: TopicPartition) -> None:
            self.tp, self.looks = tp, 0

        def due(self, now_s: float, _: float, *, stopping: bool) -> float:
            self.looks += 1
            return now_s + 120.0 + self.tp.partition

        async def close(self) -> None: ...

    owned = [WaitingPartition(TopicPartition(BATCHES, n)) for n in range(5)]

    async def waiting(*_: object) -> list[OwnedPartition]:
        return owned  # type: ignore[return-value]

    loop, timers = asyncio.get_running_loop(), list[asyncio.TimerHandle]()
    plain = loop.call_at

    def recorded(when: float, *args: object, **more: contextvars.Context) -> asyncio.TimerHandle:
        handle = plain(when, *args, **more)
        if when - loop.time() > 90.0:  # heartbeats and time-outs are shorter
            timers.append(handle)
        return handle

    monkeypatch.setattr(loop, "call_at", recorded)
    node, stop = make(intake, take_over=waiting), asyncio.Event()
    await node.on_partitions_assigned([KafkaPartition("sightline.batches", n) for n in range(5)])
    running = asyncio.create_task(ended(node, stop))
    async with asyncio.timeout(60):
        while owned[-1].looks < 10:
            intake.fetched.put_nowait([LogRecord(BATCHES_LATE, 0, 0, None, b"")])  # only wakes the node
            await asyncio.sleep(0)
    (timer,) = [each for each in timers if not each.cancelled()]
    assert len(timers) >= 10
    assert timer.when() - loop.time() == pytest.approx(120.0, abs=1.0)
    stop.set()
    await running
    assert timer.cancelled()


@pytest.mark.parametrize(
    ("queue_s", "goal_s", "expected_s"), [(0.0, 1.0, 0.0), (0.2, 1.0, 0.1), (9.0, 1.0, 0.25), (9.0, 0.2, 0.05)]
)
def test_results_wait_for_a_shared_transaction_at_most_a_quarter_of_the_shortest_latency_goal(
    queue_s: float, goal_s: float, expected_s: float
) -> None:
    assert patience(queue_s, goal_s) == pytest.approx(expected_s)


async def test_a_node_that_stops_commits_the_offsets_of_all_results_that_it_has_written(
    intake: FakeIntake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(takeover, "IDLE_COMMIT_S", 3600.0)
    log, stop = MemoryLog(2), asyncio.Event()
    node = make(intake, log)
    await node.on_partitions_assigned([OTHER])
    ending = asyncio.create_task(ended(node, stop))
    async with asyncio.timeout(60):
        await intake.all_begun.wait()
        for n in range(3):  # the second and third within a quarter of a second after the first commit
            intake.fetched.put_nowait([await put(log, n)])
            while len(await written(log)) <= n:
                await asyncio.sleep(0)
    stop.set()
    await ending
    assert await log.committed(ENGINES, TopicPartition(BATCHES, 1)) == 3


async def test_an_error_of_the_kafka_consumer_ends_the_node(intake: FakeIntake) -> None:
    intake.fetched.put_nowait(RuntimeError("codec"))
    with pytest.raises(RuntimeError, match="codec"):
        await ended(make(intake))


async def test_a_node_reads_the_configuration_again_before_frames_of_an_unknown_pipeline_become_dead_letters(
    intake: FakeIntake,
) -> None:
    refreshed = 0

    async def refresh() -> None:
        nonlocal refreshed
        refreshed += 1

    log, metrics = MemoryLog(2), NodeMetrics(CollectorRegistry())
    node = Node(log, intake, no_models(), concurrency=1, metrics=metrics, refresh=refresh)
    async with running(node, intake, ONE):
        intake.fetched.put_nowait([record([item(n)], offset=n) for n in range(2)])
        await until_written(log, DEADLETTER, 2)
    assert refreshed == 1


async def test_a_node_does_not_read_the_configuration_again_for_batches_of_pipelines_without_a_model(
    intake: FakeIntake,
) -> None:
    async def refresh() -> None:
        pytest.fail("the configuration was read again")

    moving = item(0, rows=0).model_copy(update={"outcome": "motion", "motion": (Box(1.0, 2.0, 3.0, 4.0),)})
    log, metrics = MemoryLog(2), NodeMetrics(CollectorRegistry())
    node = Node(log, intake, no_models(), concurrency=1, metrics=metrics, refresh=refresh)
    async with running(node, intake, ONE):
        intake.fetched.put_nowait([record([moving], pipeline="moving"), record([item(0, rows=0)], offset=1)])
        await until_written(log, RESULTS, 2)


async def test_batches_of_other_pipelines_are_classified_while_the_model_of_a_new_pipeline_loads(
    intake: FakeIntake,
) -> None:
    source, log = FakeSource(), MemoryLog(2)
    live = LiveModels(source, NodeMetrics(CollectorRegistry()), lambda: 0.0)
    old, new = (CARS.model_copy(update={"name": name}) for name in ("regions", "new"))
    await configured(live, [old])
    source.may_load.clear()

    async def refresh() -> None:
        live.want([old, new])

    metrics = NodeMetrics(CollectorRegistry())
    node = Node(log, intake, live, concurrency=1, metrics=metrics, refresh=refresh)
    async with running(node, intake, ONE, OTHER):
        intake.fetched.put_nowait([record([item(0, camera="a")], offset=0, pipeline="new")])
        intake.fetched.put_nowait([replace(record([item(0, camera="b")], offset=0), partition=1)])
        loading = asyncio.create_task(live.run(60.0))
        await until_written(log, RESULTS, 1, partition=1)
        assert await log.ends(RESULTS) == {0: 0, 1: 1}
        source.may_load.set()
        await until_written(log, RESULTS, 1)
        assert await log.ends(DEADLETTER) == {0: 0}
    loading.cancel()
    await asyncio.wait({loading})
    await live.close()
