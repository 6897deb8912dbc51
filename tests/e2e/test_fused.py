"""Tests of an engine node that prepares frames itself, on an in-memory log, with the processor of the stage prepare.

``tests/chaos/test_kills.py`` has the test with Kafka.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager

import pytest
from aiokafka import TopicPartition as KafkaPartition
from prometheus_client import CollectorRegistry

from engines.metrics import NodeMetrics
from engines.node.fused import FramePreparation, OwnedFrames, take_over_frames
from engines.node.jobs import HighWaterMarks
from engines.node.node import Node
from engines.node.pipelines import LiveModels
from engines.node.takeover import OwnedPartition, take_over
from ingest import deadletter
from ingest.contract import headers as h
from ingest.contract.codec import decode, encode
from ingest.contract.groups import ENGINES, FUSED_CLIENT, PREPARE_LIVE
from ingest.contract.identity import LATE, LIVE, replay_lane
from ingest.contract.records import Result
from ingest.contract.topics import BATCHES, BATCHES_LATE, DEADLETTER, FRAMES, FRAMES_LATE, RESULTS
from ingest.exceptions import Fenced, HostConflict, LogUnavailable
from ingest.kafka import membership
from ingest.kafka.log import Log, LogRecord, Outgoing, TopicPartition
from ingest.kafka.memorylog import MemoryLog
from ingest.kafka.position import StartPosition
from ingest.runtime.clock import ManualClock
from ingest.site import PipelineConfig
from ingest.site.topic.view import Config
from stream.prepare.stage import PrepareStage
from stream.runner.memory import MemoryRunner
from tests.engines.node.fakesource import CARS, PEOPLE, FakeIntake, FakeSource, configured, until_written
from tests.stream.prepare.bench import frame

TOPICS = (FRAMES, FRAMES_LATE, BATCHES, BATCHES_LATE)
LIVE_FRAMES = TopicPartition(FRAMES, 1)
Running = tuple["LogIntake", "asyncio.Task[None]"]
TakeOver = Callable[[Log, Sequence[TopicPartition]], Awaitable[list[OwnedPartition]]]


class LogIntake(FakeIntake):
    """A consumer that reads the begun partitions of a log, the partitions of ``batches`` last."""

    def __init__(self, log: MemoryLog) -> None:
        super().__init__()
        self._log = log

    async def next(self) -> list[LogRecord]:
        if not self.fetched.empty():
            return await super().next()
        await asyncio.sleep(0.001)
        for tp in sorted(self.begun, reverse=True):
            at, end = self.begun[tp], (await self._log.ends(tp.topic))[tp.partition]
            if at < end:
                self.begun[tp] = min(end, at + 16)
                return [record async for record in self._log.read(*tp, at, self.begun[tp])]
        return []


def stages(*pipelines: PipelineConfig) -> dict[str, PrepareStage]:
    config, clock = Config({p.key: p for p in pipelines}), ManualClock()
    return {FRAMES: PrepareStage("live", config, clock), FRAMES_LATE: PrepareStage("late", config, clock)}


def fused(*pipelines: PipelineConfig) -> TakeOver:
    prepare = stages(*pipelines)
    return lambda log, tps: take_over_frames(log, tps, lambda tp: prepare[tp.topic].processor(tp))


class Fixture:
    """A log, and nodes that classify its frames with the pipelines ``cars`` and ``people``."""

    def __init__(self) -> None:
        self.log, self.source, self.pipelines = MemoryLog(2), FakeSource(), (CARS, PEOPLE)

    async def give(self, seqs: Iterable[int], topic: str = FRAMES, **values: object) -> None:
        for seq in seqs:
            one = frame(seq, **values)
            headers = h.frame_headers([one.id], LIVE if topic == FRAMES else LATE)
            await self.log.produce(Outgoing(topic, 1, encode(one), key=b"gate", headers=headers))

    async def prepare(self) -> None:
        """Run the stage prepare as a service of its own, up to its commit."""
        clock = ManualClock()
        runner = MemoryRunner(stages(*self.pipelines)[FRAMES], self.log, clock)
        await runner.run()
        await runner.stop()

    @asynccontextmanager
    async def node(self, take_over: TakeOver | None = None, topics: Sequence[str] = TOPICS) -> AsyncIterator[Running]:
        """Run a node for the ``with`` block."""
        live = LiveModels(self.source, NodeMetrics(CollectorRegistry()), lambda: 0.0)
        await configured(live, self.pipelines)
        metrics, chosen = NodeMetrics(CollectorRegistry()), take_over or fused(*self.pipelines)
        intake = LogIntake(self.log)
        node = Node(self.log, intake, live, concurrency=1, metrics=metrics, take_over=chosen)
        await node.on_partitions_assigned([KafkaPartition(f"sightline.{topic}", 1) for topic in topics])
        stop = asyncio.Event()
        task = asyncio.create_task(node.run(stop))
        try:
            yield intake, task
        finally:
            stop.set()
            try:
                await asyncio.wait_for(task, 60)
            finally:
                await live.close()

    async def results(self, count: int, pipeline: str = "cars") -> list[tuple[str, int]]:
        """Wait for ``count`` results, and return the lanes and sequence numbers of a pipeline's results."""
        await until_written(self.log, RESULTS, count, partition=1)
        records = [r async for r in self.log.read(RESULTS, 1, 0, (await self.log.ends(RESULTS))[1])]
        found = [decode(Result, record.value) for record in records]
        return [(one.lane, one.seq) for one in found if one.pipeline == pipeline]


@pytest.fixture
async def rig() -> Fixture:
    return Fixture()


def live(*seqs: int) -> list[tuple[str, int]]:
    return [(LIVE, seq) for seq in seqs]


async def test_a_fused_node_classifies_frames_of_both_lanes_and_writes_no_batches(rig: Fixture) -> None:
    await rig.give(range(3))
    await rig.give([7, 8], FRAMES_LATE)
    async with rig.node():
        found = await rig.results(10)
    assert sorted(found) == sorted([(LATE, 7), (LATE, 8), *live(0, 1, 2)])
    assert [await rig.log.committed(ENGINES, TopicPartition(t, 1)) for t in (FRAMES, FRAMES_LATE)] == [3, 2]
    assert await rig.log.ends(BATCHES) == await rig.log.ends(BATCHES_LATE) == {0: 0, 1: 0}


async def test_an_undecodable_frame_becomes_a_dead_letter_and_its_offset_is_committed(
    rig: Fixture,
) -> None:
    await rig.log.produce(Outgoing(FRAMES, 1, b"no frame", key=b"gate"))
    async with rig.node():
        await until_written(rig.log, DEADLETTER, 1)
    (letter,) = [one async for one in deadletter.letters(rig.log)]
    assert (letter.failure.stage, letter.position, letter.record.value) == (PREPARE_LIVE, "frames[1]@0", b"no frame")
    assert await rig.log.committed(ENGINES, LIVE_FRAMES) == 1


async def test_a_fused_node_classifies_batches_left_by_prepare_first_and_no_frame_twice(rig: Fixture) -> None:
    await rig.give(range(3))
    await rig.prepare()
    await rig.give(range(1, 6))  # the agent repeats frames 1 and 2
    async with rig.node():
        assert await rig.results(12) == live(0, 1, 2, 3, 4, 5)


async def test_a_fused_node_reads_no_frame_before_results_of_all_earlier_batches_are_written(rig: Fixture) -> None:
    await rig.give(range(3))
    await rig.prepare()
    await rig.give(range(3, 5))
    intake = LogIntake(rig.log)
    rig.source.may_load.clear()  # the model loads, so that no batch can be classified
    live_models = LiveModels(rig.source, NodeMetrics(CollectorRegistry()), lambda: 0.0)
    live_models.want(rig.pipelines)
    loading = asyncio.create_task(live_models.update())
    metrics = NodeMetrics(CollectorRegistry())
    node = Node(rig.log, intake, live_models, concurrency=1, metrics=metrics, take_over=fused(*rig.pipelines))
    await node.on_partitions_assigned([KafkaPartition(f"sightline.{topic}", 1) for topic in TOPICS])
    stop = asyncio.Event()
    task = asyncio.create_task(node.run(stop))
    while intake.begun.get(TopicPartition(BATCHES, 1)) != (await rig.log.ends(BATCHES))[1]:
        await asyncio.sleep(0.001)
    for _ in range(20):
        await asyncio.sleep(0.001)
    assert LIVE_FRAMES not in intake.begun
    rig.source.may_load.set()
    await loading
    assert await rig.results(10) == live(0, 1, 2, 3, 4)
    stop.set()
    await asyncio.wait_for(task, 60)
    await live_models.close()


async def test_a_frames_partition_reassigned_while_its_batches_are_checked_is_not_read_from_its_old_offset(
    rig: Fixture,
) -> None:
    tps = [LIVE_FRAMES, TopicPartition(BATCHES, 1)]
    old, new = [{one.tp: one for one in await fused(CARS)(rig.log, tps)} for _ in range(2)]
    taken_over = asyncio.Event()

    class Intake(FakeIntake):
        async def position(self, tp: TopicPartition) -> int:
            old.update(new)
            taken_over.set()
            return 0

    intake = Intake()
    preparation = FramePreparation(rig.log, intake, old)  # type: ignore[arg-type]  # a fake of the consumer
    preparation.add(LIVE_FRAMES)
    await preparation.begin_drained()
    assert taken_over.is_set()
    assert intake.begun == {}
    await preparation.begin_drained()
    assert intake.begun == {LIVE_FRAMES: 0}
    preparation.close()


async def test_a_fused_node_that_takes_over_partitions_requests_the_end_offsets_of_each_batches_topic_once(
    rig: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    settled_ends = rig.log.settled_ends

    async def counted(topic: str, partitions: Sequence[int]) -> Mapping[int, int]:
        asked.append(topic)
        return await settled_ends(topic, partitions)

    monkeypatch.setattr(rig.log, "settled_ends", counted)
    await rig.log.produce(Outgoing(BATCHES, 1, b"batch"))
    opened = await fused(CARS)(rig.log, [TopicPartition(topic, n) for topic in TOPICS for n in range(2)])
    ends = {one.tp: one.batches_end for one in opened if isinstance(one, OwnedFrames)}
    assert ends == {TopicPartition(t, n): int((t, n) == LIVE_FRAMES) for t in (FRAMES, FRAMES_LATE) for n in range(2)}
    assert (asked.count(BATCHES), asked.count(BATCHES_LATE)) == (1, 1)


async def test_prepare_and_engine_nodes_continue_where_a_fused_node_stopped(rig: Fixture) -> None:
    await rig.give(range(3))
    await rig.prepare()
    async with rig.node(take_over, (BATCHES, BATCHES_LATE)):
        await rig.results(6)
    await rig.give(range(3, 6))
    async with rig.node():
        await rig.results(12)
    await rig.give(range(6, 9))
    await rig.prepare()
    async with rig.node(take_over, (BATCHES, BATCHES_LATE)):
        assert await rig.results(18) == live(*range(9))
    assert await rig.log.committed(PREPARE_LIVE, LIVE_FRAMES) == 9


async def test_results_written_before_a_kill_are_not_repeated_although_frame_offsets_were_not_committed(
    rig: Fixture,
) -> None:
    await rig.give(range(4))
    (owned,) = await fused(CARS, PEOPLE)(rig.log, [LIVE_FRAMES])
    assert isinstance(owned, OwnedFrames)
    frames = [record async for record in rig.log.read(FRAMES, 1, 0, 4)]
    assert all(map(owned.deliver, frames))
    assert owned.prepare(frames, 0.0) == []
    first, *_ = owned.flush()  # the batch of one pipeline
    (job,) = owned.take_work(first, frozenset({"cars", "people"}))
    for task in job.tasks.values():
        task.detections = []
    await owned.write(lambda: 5, 0.0)
    assert await rig.log.committed(ENGINES, LIVE_FRAMES) == 0
    async with rig.node():
        assert await rig.results(8) == live(0, 1, 2, 3)
        assert await rig.results(8, "people") == live(0, 1, 2, 3)
    with pytest.raises(Fenced):
        await owned._writer.write([], ENGINES, {LIVE_FRAMES: 4})


async def test_engine_nodes_with_and_without_fused_preparation_fence_each_other(rig: Fixture) -> None:
    lanes = [TopicPartition(BATCHES, 1), TopicPartition(BATCHES_LATE, 1)]
    frames = [LIVE_FRAMES, TopicPartition(FRAMES_LATE, 1)]
    for old, new in ((fused(CARS), take_over), (take_over, fused(CARS))):
        tps = [*frames, *lanes] if old is not take_over else lanes
        opened = await old(rig.log, tps)
        await new(rig.log, lanes)
        for owned in opened:
            with pytest.raises(Fenced):
                await owned._writer.write([], ENGINES, {owned.tp: 1})


async def test_a_fused_node_alternates_between_writing_results_of_the_frames_topic_and_of_the_batches_topic(
    rig: Fixture,
) -> None:
    written: list[str] = []
    stop, lane = asyncio.Event(), [TopicPartition(topic, 1) for topic in (FRAMES, BATCHES)]

    class AlwaysDue(OwnedPartition):
        def due(self, now_s: float, patience_s: float, *, stopping: bool = False) -> float | None:
            return None if stop.is_set() else now_s

        async def write(self, now_ns: Callable[[], int], now_s: float) -> int:
            written.append(self.tp.topic)
            if len(written) == 4:
                stop.set()
            return 0

    async def always_due(log: Log, tps: Sequence[TopicPartition]) -> list[OwnedPartition]:
        return [
            AlwaysDue(tp, await log.writer(str(tp)), HighWaterMarks(), StartPosition(0)) for tp in sorted(tps)[::-1]
        ]

    async with rig.node(always_due, [tp.topic for tp in lane]):
        await asyncio.wait_for(stop.wait(), 60)
    assert written == [FRAMES, BATCHES, FRAMES, BATCHES]


async def test_a_dead_letter_of_a_fused_node_is_replayed_on_the_batches_topic_and_classified(rig: Fixture) -> None:
    rig.pipelines = (CARS,)
    broken = False

    def fail() -> None:
        if broken:
            raise ValueError("bad picture")

    rig.source.on_image = fail
    async with rig.node():
        broken = True
        await rig.give([0])
        await until_written(rig.log, DEADLETTER, 1)
        broken = False
        report = await deadletter.replay(rig.log, "again")
        assert report.sent == 1
        assert await rig.results(1) == [(replay_lane("again"), 0)]
    (letter,) = [one async for one in deadletter.letters(rig.log)]
    assert letter.failure.topic == BATCHES


async def test_a_fused_node_refuses_to_run_beside_prepare(rig: Fixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "LEAVE_S", 0.0)
    rig.log.members[PREPARE_LIVE] = ["prepare-live-a"]
    with pytest.raises(HostConflict, match=r"prepare-live-a: .*stop `sightline prepare`"):
        await fused(CARS)(rig.log, [LIVE_FRAMES])


async def test_prepare_refuses_to_run_beside_a_fused_node_and_runs_beside_other_nodes(
    rig: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(membership, "LEAVE_S", 0.0)
    stage = stages(CARS)[FRAMES]
    rig.log.members[ENGINES] = ["engine-a"]
    assert await stage.open(LIVE_FRAMES, 0, rig.log)
    rig.log.members[ENGINES] = ["engine-a", f"{FUSED_CLIENT}b"]
    with pytest.raises(HostConflict, match=r"engine-fused-b: .*stop"):
        await stage.open(LIVE_FRAMES, 0, rig.log)


async def test_a_fused_node_waits_until_the_last_members_of_prepare_have_left_their_group(
    rig: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(membership, "_LEAVE_POLL_S", 0.001)
    rig.log.members[PREPARE_LIVE] = ["prepare-live-a"]
    taking = asyncio.create_task(fused(CARS)(rig.log, [LIVE_FRAMES, TopicPartition(BATCHES, 1)]))
    await asyncio.sleep(0.01)
    assert not taking.done()
    rig.log.members.clear()
    assert len(await taking) == 2


async def test_a_recreated_frames_topic_ends_the_node_and_is_read_from_its_beginning_after_a_restart(
    rig: Fixture,
) -> None:
    async def created_again() -> None:
        async with rig.node() as (intake, ended):
            await rig.results(6)
            rig.log.create_again(LIVE_FRAMES)
            await rig.give([0], epoch=2)
            intake.begun[LIVE_FRAMES] = 0
            await asyncio.wait({ended})

    await rig.give(range(3))
    with pytest.raises(LogUnavailable, match="created again"):
        await created_again()
    async with rig.node():
        assert await rig.results(8) == live(0, 1, 2, 0)
