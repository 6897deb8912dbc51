"""Tests of the chunks in which the loop of one partition processes records."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from ingest.contract.topics import FRAMES, STATUS
from ingest.kafka.log import Log, LogRecord, Outgoing, TopicPartition
from stream.runner import chunk, partition
from stream.runner.acks import FetchNumber
from stream.runner.echo import EchoProcessor, EchoStage
from stream.runner.processor import Work
from tests.stream.runner.fakemember import until
from tests.stream.runner.looprig import ASSIGNMENT, PARTITION, Make


async def test_records_that_were_fetched_together_take_one_call_of_a_worker_thread(
    rigs: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunk, "CHUNK_S", 60.0)
    rig = rigs(EchoStage())
    rig.offer(0, 50)
    await until(lambda: len(rig.sent) == 50)
    assert rig.pool.calls == 1
    assert [int(record.value) for record, _ in rig.sent] == list(range(50))


@pytest.mark.parametrize("drains", [False, True])
async def test_a_chunk_of_records_ends_immediately_when_the_partition_loop_is_suspended_or_drained(
    rigs: Make, monkeypatch: pytest.MonkeyPatch, drains: bool
) -> None:
    """The remaining records stay in the queue of a suspended loop; the next owner reads those of a drained loop."""
    monkeypatch.setattr(chunk, "CHUNK_S", 60.0)
    began, goes_on = threading.Event(), threading.Event()

    class BlockingProcessor(EchoProcessor):
        def process(self, record: LogRecord) -> Sequence[Work]:
            began.set()
            goes_on.wait(60.0)
            return super().process(record)

    class BlockingStage(EchoStage):
        async def open(self, tp: TopicPartition, position: int, log: Log) -> EchoProcessor:
            return BlockingProcessor(self)

    rig = rigs(BlockingStage())
    rig.member.acknowledge_at_once = True
    rig.offer(0, 5)
    await until(began.is_set)
    draining = asyncio.create_task(rig.loop.drain()) if drains else None
    if draining:
        await asyncio.sleep(0)
    else:
        rig.loop.hold(True)
    goes_on.set()
    await until(lambda: rig.loop.position == 1)
    assert (rig.loop.fed, rig.loop.queued) == (1, 0 if drains else 4)
    if draining:
        await draining
    else:
        rig.loop.hold(False)
        await until(lambda: rig.loop.position == 5)


async def test_a_chunk_of_records_ends_at_its_time_limit(rigs: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunk, "CHUNK_S", 0.0)
    rig = rigs(EchoStage())
    rig.offer(0, 5)
    await until(lambda: len(rig.sent) == 5)
    assert rig.pool.calls == 5


async def test_expired_records_in_the_middle_of_a_fetch_are_counted(rigs: Make) -> None:
    rig = rigs(EchoStage())
    for _ in range(9):
        await rig.log.produce(Outgoing(*PARTITION, b"x"))
    await until(lambda: rig.loop.position == 0)
    rig.log.forget(PARTITION, 6)
    found = [LogRecord(FRAMES, 0, offset, None, b"%d" % offset) for offset in (0, 6, 7)]
    rig.loop.offer(found, FetchNumber(ASSIGNMENT, 0))
    await until(lambda: len(rig.sent) == 3)
    assert rig.loop._shared.metrics.expired_unread._value.get() == 5


async def test_expired_records_are_counted_once_although_the_loop_is_suspended_meanwhile(
    rigs: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def suspending(*args: Any) -> int:
        rig.loop.hold(rig.pool.calls == 0)
        return await expired_between(*args)

    expired_between = partition.expired_between
    monkeypatch.setattr(partition, "expired_between", suspending)
    rig = rigs(EchoStage())
    rig.member.acknowledge_at_once = True
    for _ in range(9):
        await rig.log.produce(Outgoing(*PARTITION, b"x"))
    await until(lambda: rig.loop.position == 0)
    rig.log.forget(PARTITION, 6)
    rig.offer_one(6, FetchNumber(ASSIGNMENT, 0))
    await until(lambda: rig.pool.calls == 1 and not rig.loop.busy)
    rig.loop.hold(False)
    await until(lambda: len(rig.sent) == 1)
    assert rig.loop._shared.metrics.expired_unread._value.get() == 6
    assert await rig.log.ends(STATUS) == {0: 1}


class ThreadsStage(EchoStage):
    """A stage that notes which thread processes each record."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: list[bool] = []
        """For each processed record, whether the main thread processed it."""

    async def open(self, tp: TopicPartition, position: int, log: Log) -> EchoProcessor:
        stage = self

        class Noting(EchoProcessor):
            in_event_loop = True

            def process(self, record: LogRecord) -> Sequence[Work]:
                stage.threads.append(threading.current_thread() is threading.main_thread())
                return super().process(record)

        return Noting(self)


@pytest.mark.parametrize(
    ("single_s", "several_s", "chunk_s"),
    [(60.0, 60.0, 60.0), (60.0, -1.0, 60.0), (60.0, 60.0, -1.0), (-1.0, -1.0, 60.0)],
    ids=["short", "too long for several", "long chunk", "too long"],
)
async def test_records_are_processed_in_the_event_loop_if_the_previous_records_took_little_time(
    rigs: Make, monkeypatch: pytest.MonkeyPatch, single_s: float, several_s: float, chunk_s: float
) -> None:
    """A single record may have taken longer than each of several records that wait together."""
    monkeypatch.setattr(chunk, "CHUNK_S", 60.0)
    monkeypatch.setattr(partition, "EVENT_LOOP_S", single_s)
    monkeypatch.setattr(partition, "SHORT_S", several_s)
    monkeypatch.setattr(partition, "LONG_CHUNK_S", chunk_s)
    stage = ThreadsStage()
    rig = rigs(stage)
    for first, last in ((0, 1), (1, 2), (2, 4), (4, 5)):
        rig.offer(first, last)
        await until(lambda last=last: len(rig.sent) == last)  # type: ignore[misc]
    single, several = single_s > 0.0, several_s > 0.0 and chunk_s > 0.0
    assert stage.threads == [False, single, several, several, single]


async def test_other_tasks_run_between_two_chunks_that_are_processed_in_the_event_loop(
    rigs: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunk, "CHUNK_S", 0.0)  # a chunk of one record
    for limit in ("EVENT_LOOP_S", "SHORT_S", "LONG_CHUNK_S"):
        monkeypatch.setattr(partition, limit, 60.0)
    rig = rigs(ThreadsStage())
    rig.offer(0, 1)
    await until(lambda: len(rig.sent) == 1)
    rig.offer(1, 9)
    counts: list[int] = []
    while len(rig.sent) < 9:
        await asyncio.sleep(0)
        counts.append(len(rig.sent))
    assert {2, 3, 4} <= set(counts)


async def test_the_runner_writes_the_work_that_a_processor_returns_at_the_end_of_a_chunk(
    rigs: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunk, "CHUNK_S", 60.0)

    class CollectingProcessor(EchoProcessor):
        def process(self, record: LogRecord) -> Sequence[Work]:
            self._held.append(record)
            return ()

        def end_chunk(self) -> Sequence[Work]:
            return self.flush()

    class CollectingStage(EchoStage):
        async def open(self, tp: TopicPartition, position: int, log: Log) -> EchoProcessor:
            return CollectingProcessor(self)

    rig = rigs(CollectingStage())
    rig.member.acknowledge_at_once = True
    rig.offer(0, 5)
    await until(lambda: rig.loop.position == 5)
    assert [int(record.value) for record, _ in rig.sent] == list(range(5))
