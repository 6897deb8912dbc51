"""Tests of the limits at which the partitions of a lane pause and continue."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import pytest
from aiokafka import TopicPartition as KafkaPartition
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Gauge

from engines.node.intake import (
    LATE_SHARE,
    LIVE_BYTES,
    LIVE_JOBS,
    LIVE_ROWS_PER_INSTANCE,
    BatchIntake,
    LaneLoad,
    LaneThrottle,
)
from engines.node.jobs import HighWaterMarks
from engines.node.scheduler import Scheduler
from engines.node.takeover import OwnedPartition
from ingest.contract.topics import BATCHES, BATCHES_LATE, FRAMES, FRAMES_LATE
from ingest.kafka.log import TopicPartition
from ingest.kafka.membership import MemberGuard
from ingest.kafka.memorylog import MemoryLog
from ingest.kafka.position import StartPosition
from ingest.kafka.settings import KafkaSettings
from tests.engines.node.batches import EvenModels, item, record

ONE, TWO = TopicPartition(BATCHES, 0), TopicPartition(BATCHES, 1)


@pytest.mark.parametrize(
    "over",
    [
        LaneLoad(rows=2 * LIVE_ROWS_PER_INSTANCE + 1),
        LaneLoad(jobs=LIVE_JOBS + 1),
        LaneLoad(bytes=LIVE_BYTES + 1),
    ],
)
def test_a_lane_pauses_fetching_at_its_limit_of_rows_jobs_or_bytes_and_resumes_at_half_the_limit(
    over: LaneLoad,
) -> None:
    lane = LaneThrottle(2, late=False)

    def pauses(load: LaneLoad) -> bool:
        return bool(lane.paused(load, {ONE: load.rows}))

    assert not pauses(LaneLoad(over.rows - 1, over.jobs - 1, over.bytes - 1))
    assert pauses(over)
    assert pauses(LaneLoad(over.rows // 2 + 1, over.jobs // 2 + 1, over.bytes // 2 + 1))
    assert not pauses(LaneLoad(over.rows // 2, over.jobs // 2, over.bytes // 2))
    assert not pauses(LaneLoad(over.rows - 1, over.jobs - 1, over.bytes - 1))


def test_the_late_lane_has_a_fraction_of_the_memory_limits_of_the_live_lane() -> None:
    late = LaneThrottle(2, late=True)
    limit = 2 * LIVE_ROWS_PER_INSTANCE // LATE_SHARE
    assert not late.paused(LaneLoad(rows=limit), {ONE: limit})
    assert late.paused(LaneLoad(rows=limit + 1), {ONE: limit + 1})


def test_too_many_waiting_rows_pause_only_the_partition_from_which_the_rows_come() -> None:
    lane, limit = LaneThrottle(1, late=False), LIVE_ROWS_PER_INSTANCE
    assert lane.paused(LaneLoad(rows=limit + 5), {ONE: limit, TWO: 5}) == {ONE}


def test_too_many_waiting_bytes_pause_all_partitions() -> None:
    lane = LaneThrottle(1, late=False)
    assert lane.paused(LaneLoad(bytes=LIVE_BYTES + 1), {ONE: 0, TWO: 5}) == {ONE, TWO}


@given(rows=st.lists(st.integers(0, 300), min_size=1, max_size=8))
def test_above_its_row_limit_a_lane_pauses_partitions_until_unpaused_ones_hold_at_most_half_the_limit(
    rows: list[int],
) -> None:
    lane, limit = LaneThrottle(1, late=False), LIVE_ROWS_PER_INSTANCE
    waiting = {TopicPartition(BATCHES, n): count for n, count in enumerate(rows)}
    paused = lane.paused(LaneLoad(rows=sum(rows)), waiting)
    assert bool(paused) == (sum(rows) > limit)
    if paused:
        assert sum(count for tp, count in waiting.items() if tp not in paused) <= limit // 2


class FakeConsumer:
    """A consumer of two assigned partitions without records, which keeps the paused and the polled partitions."""

    def __init__(self) -> None:
        self.stopped: set[KafkaPartition] = set()
        self.polled: list[set[KafkaPartition]] = []

    def assignment(self) -> set[KafkaPartition]:
        return {KafkaPartition(f"sightline.{tp.topic}", tp.partition) for tp in (ONE, TWO)}

    def paused(self) -> set[KafkaPartition]:
        return set(self.stopped)

    def pause(self, *partitions: KafkaPartition) -> None:
        self.stopped |= set(partitions)

    def resume(self, *partitions: KafkaPartition) -> None:
        self.stopped -= set(partitions)

    async def getmany(self, *partitions: KafkaPartition, **_: int) -> dict[KafkaPartition, list[object]]:
        self.polled.append(set(partitions))
        return {}


async def test_jobs_of_a_loading_model_pause_their_partition_and_do_not_count_as_waiting_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    consumer, models = FakeConsumer(), EvenModels(8)
    monkeypatch.setattr("engines.node.intake.kafka.consumer", lambda *_, **__: consumer)
    intake, scheduler = BatchIntake(KafkaSettings(), "engine", 1, 6000), Scheduler(models)
    owned = [
        OwnedPartition(tp, await MemoryLog(2).writer(str(tp)), HighWaterMarks(), StartPosition(0))
        for tp in (ONE, TWO)
    ]
    models.loading = {"new"}
    for partition, pipeline, rows in zip(owned, ("new", "regions"), (LIVE_ROWS_PER_INSTANCE, 5), strict=True):
        batch = record([item(0, rows=rows)], pipeline=pipeline)
        scheduler.add(partition.tp, partition.take(batch, frozenset({"new", "regions"})), 0)
    intake.throttle(owned, scheduler)
    assert {intake.tp(kafka_tp) for kafka_tp in consumer.stopped} == {ONE}
    models.loading.clear()
    intake.throttle(owned, scheduler)
    assert {intake.tp(kafka_tp) for kafka_tp in consumer.stopped} == {ONE}  # the lane now exceeds its limit
    scheduler.drop(ONE)
    intake.throttle(owned, scheduler)
    assert not consumer.stopped


async def test_a_poll_names_only_partitions_that_are_not_paused_so_that_prefetched_records_of_the_others_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    consumer = FakeConsumer()
    monkeypatch.setattr("engines.node.intake.kafka.consumer", lambda *_, **__: consumer)
    intake, (one, two) = BatchIntake(KafkaSettings(), "engine", 1, 6000), sorted(consumer.assignment())
    for stopped in (set[KafkaPartition](), {one}, {one, two}):
        consumer.stopped = stopped
        assert await intake.next() == []
    everything, only_two, nothing = consumer.polled
    assert (everything, only_two) == ({one, two}, {two})
    assert nothing  # aiokafka takes no partition for all partitions
    assert not nothing & {one, two}


@pytest.mark.parametrize(("fused", "idle"), [(True, 0), (False, 1)])
async def test_a_standby_fused_node_does_not_count_as_idle_although_another_node_has_all_partitions(
    fused: bool, idle: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engines.node.intake.kafka.consumer", lambda *_, **__: FakeConsumer())
    asked = asyncio.Event()

    class Group:
        async def partitions(self) -> Mapping[str, int]:
            return dict.fromkeys((FRAMES, FRAMES_LATE, BATCHES, BATCHES_LATE), 1)

        async def members(self, _: str) -> Sequence[tuple[str, int]]:
            if gauge_is_set.is_set():
                asked.set()
            gauge_is_set.set()
            return [("other", 4), ("spare", 0)]

    gauge, gauge_is_set = Gauge("idle", "", registry=CollectorRegistry()), asyncio.Event()
    topics = BatchIntake(KafkaSettings(), "spare", 1, 6000, fused=fused).spread_topics
    guard = MemberGuard(Group(), "engines", topics, "spare", gauge, check_s=0.0)
    async with guard.watching(asyncio.Event()):
        await asyncio.wait_for(asked.wait(), 60)
    assert gauge._value.get() == idle
