"""Tests of the node with a fake consumer, while partitions are assigned and revoked.

Tests with Kafka are in chaos/ and e2e/.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence

import pytest
from aiokafka import TopicPartition as KafkaPartition
from prometheus_client import CollectorRegistry

from engines.exceptions import ManifestError
from engines.metrics import NodeMetrics
from engines.node.node import Node
from engines.node.pipelines import PipelineWatch
from engines.node.takeover import OwnedPartition, take_over
from ingest.contract.headers import PIPELINE
from ingest.contract.topics import BATCHES, BATCHES_LATE, DEADLETTER
from ingest.exceptions import ConfigError, LogUnavailable
from ingest.kafka.log import Log, LogRecord, Outgoing, Position, TopicPartition, Writer
from ingest.kafka.memorylog import MemoryLog
from ingest.kafka.position import StartPosition
from ingest.site import PipelineConfig
from ingest.site.topic.view import Config

ONE, TWO = KafkaPartition("sightline.batches", 0), KafkaPartition("sightline.batches.late", 1)
TP_ONE, TP_TWO = TopicPartition(BATCHES, 0), TopicPartition(BATCHES_LATE, 1)
TakeOver = Callable[[Log, Sequence[TopicPartition]], Awaitable[list[OwnedPartition]]]


class FakeIntake:
    """A consumer that yields the lists of records put into ``fetched``, and records its calls."""

    def __init__(self) -> None:
        self.held: set[TopicPartition] = set()
        self.begun: dict[TopicPartition, int] = {}
        self.all_begun = asyncio.Event()
        self.fetched: asyncio.Queue[list[LogRecord] | Exception] = asyncio.Queue()
        self.stopped = False

    def tp(self, kafka_tp: KafkaPartition) -> TopicPartition:
        return TopicPartition(kafka_tp.topic.removeprefix("sightline."), kafka_tp.partition)

    def hold(self, tps: Iterable[TopicPartition]) -> None:
        self.held = set(tps)

    def begin(self, tp: TopicPartition, position: int) -> None:
        self.begun[tp] = position
        if self.begun.keys() >= self.held:
            self.all_begun.set()

    def throttle(self, *_: object) -> None: ...

    async def start(self, _: object) -> None: ...

    async def next(self) -> list[LogRecord]:
        fetched = await self.fetched.get()
        if isinstance(fetched, Exception):
            raise fetched
        return fetched

    async def stop(self) -> None:
        self.stopped = True


@pytest.fixture
async def intake() -> FakeIntake:
    return FakeIntake()


def make(intake: FakeIntake, log: Log | None = None, take_over: TakeOver = take_over) -> Node:
    metrics = NodeMetrics(CollectorRegistry())
    return Node(log or MemoryLog(2), intake, {}, concurrency=1, metrics=metrics, take_over=take_over)


async def ended(node: Node, stop: asyncio.Event | None = None) -> None:
    async with asyncio.timeout(60):
        await node.run(stop or asyncio.Event())


async def test_partitions_are_held_until_they_are_taken_over(intake: FakeIntake) -> None:
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


@pytest.mark.parametrize("error", [LogUnavailable("gone"), KeyError("results[7]"), OSError("socket")])
async def test_a_failed_takeover_ends_the_node(intake: FakeIntake, error: Exception) -> None:
    async def fails(*_: object) -> list[OwnedPartition]:
        raise error

    node = make(intake, take_over=fails)
    await node.on_partitions_assigned([ONE])
    with pytest.raises(type(error)):
        await ended(node)
    assert intake.stopped


async def test_revoked_partitions_cancel_their_takeover_without_an_error(intake: FakeIntake) -> None:
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


async def test_a_writer_that_fails_to_close_does_not_keep_the_others_open(intake: FakeIntake) -> None:
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


async def test_partitions_that_wait_to_write_share_one_timer_set_to_the_earliest(
    intake: FakeIntake, monkeypatch: pytest.MonkeyPatch
) -> None:
    class WaitingPartition:
        """A partition whose settled jobs are due after a pause."""

        start, in_flight = StartPosition(0), 0

        def __init__(self, tp: TopicPartition) -> None:
            self.tp, self.looks = tp, 0

        def due(self, now_s: float, _: float) -> float:
            self.looks += 1
            return now_s + 60.0 + self.tp.partition

        async def close(self) -> None: ...

    owned = [WaitingPartition(TopicPartition(BATCHES, n)) for n in range(5)]

    async def waiting(*_: object) -> list[OwnedPartition]:
        return owned  # type: ignore[return-value]

    loop, timers = asyncio.get_running_loop(), list[asyncio.TimerHandle]()
    plain = loop.call_later

    def recorded(delay: float, *args: object) -> asyncio.TimerHandle:
        handle = plain(delay, *args)
        if delay > 30.0:  # heartbeats and time-outs are shorter
            timers.append(handle)
        return handle

    monkeypatch.setattr(loop, "call_later", recorded)
    node, stop = make(intake, take_over=waiting), asyncio.Event()
    await node.on_partitions_assigned([KafkaPartition("sightline.batches", n) for n in range(5)])
    running = asyncio.create_task(ended(node, stop))
    async with asyncio.timeout(60):
        while owned[-1].looks < 10:
            intake.fetched.put_nowait([LogRecord(BATCHES_LATE, 0, 0, None, b"")])  # of no owned partition: wakes only
            await asyncio.sleep(0)
    (timer,) = [each for each in timers if not each.cancelled()]
    assert len(timers) >= 10
    assert timer.when() - loop.time() == pytest.approx(60.0, abs=1.0)
    stop.set()
    await running
    assert timer.cancelled()


async def test_an_error_of_the_consumer_ends_the_node(intake: FakeIntake) -> None:
    intake.fetched.put_nowait(RuntimeError("codec"))
    with pytest.raises(RuntimeError, match="codec"):
        await ended(make(intake))


async def test_a_node_reads_no_batch_of_a_pipeline_that_a_new_process_will_serve(intake: FakeIntake) -> None:
    stop = asyncio.Event()
    asked = 0

    async def outdated() -> bool:
        nonlocal asked
        asked += 1
        stop.set()
        return True

    log = MemoryLog(2)
    node = Node(log, intake, {}, concurrency=1, metrics=NodeMetrics(CollectorRegistry()), outdated=outdated)
    await node.on_partitions_assigned([ONE])
    record = LogRecord(BATCHES, 0, 0, None, b"unread", {PIPELINE: b"new"})
    intake.fetched.put_nowait([record, record])
    await ended(node, stop)
    assert asked == 1
    assert await log.ends(DEADLETTER) == {0: 0}
    assert await log.committed("engines", TP_ONE) is None


class TestPipelineWatch:
    CARS = PipelineConfig(name="cars", model="yolox", width=16, height=16)

    def watch(self, *served: PipelineConfig) -> tuple[PipelineWatch, asyncio.Event]:
        def require_servable(pipeline: PipelineConfig) -> None:
            if pipeline.model == "missing":
                raise ManifestError("no model missing")

        stop = asyncio.Event()
        return PipelineWatch(served, require_servable, stop), stop

    def config(self, *pipelines: PipelineConfig) -> Config:
        return Config({pipeline.key: pipeline for pipeline in pipelines})

    async def test_a_configuration_with_other_pipelines_stops_the_node_cleanly(self) -> None:
        for wanted in ((), (self.CARS.model_copy(update={"min_score": 0.5}),), (self.CARS, ROADS)):
            watch, stop = self.watch(self.CARS)
            watch.configure(self.config(*wanted))
            assert watch.outdated
            assert stop.is_set()

    async def test_a_configuration_with_equal_pipelines_does_not_stop_the_node(self) -> None:
        watch, stop = self.watch(self.CARS)
        watch.configure(self.config(self.CARS.model_copy(update={"sites": ("north",)})))
        assert not watch.outdated
        assert not stop.is_set()

    async def test_a_pipeline_that_cannot_be_served_is_refused_and_the_node_goes_on(self) -> None:
        watch, stop = self.watch(self.CARS)
        with pytest.raises(ConfigError, match="servable model"):
            watch.configure(self.config(self.CARS, ROADS.model_copy(update={"model": "missing"})))
        assert not stop.is_set()


ROADS = TestPipelineWatch.CARS.model_copy(update={"name": "roads"})
