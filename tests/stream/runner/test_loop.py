"""The runner's own decisions, with no broker: an app that is never started."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest
from faust.types import TP

from ingest.contract.topics import FRAMES
from ingest.kafka.log import Log, Outgoing, TopicPartition
from ingest.kafka.memorylog import MemoryLog
from ingest.kafka.settings import KafkaSettings
from ingest.runtime.clock import Deadline
from ingest.runtime.service import EXIT_FAILED
from stream.exceptions import RunnerError
from stream.runner import loop
from stream.runner.echo import Echo, EchoStage
from stream.runner.loop import Runner
from stream.runner.opening import OPEN_AT_ONCE

PARTITIONS = 5


class Deaf:
    """A log whose reader is gone."""

    def error(self, *_: object, **__: object) -> None:
        raise BrokenPipeError


class Reader(EchoStage):
    """Reads its topic back, record by record as it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = asyncio.Semaphore(0)
        self.opening = 0
        self.most = 0
        self.opened = 0

    async def open(self, tp: TopicPartition, position: int, log: Log) -> Echo:
        self.opening += 1
        self.most = max(self.most, self.opening)
        async for _ in log.read(tp.topic, tp.partition, 0, 1):
            await self.steps.acquire()
        self.opening -= 1
        self.opened += 1
        return Echo(self)


class Rig:
    """A runner that is given partitions; each has one record to be read back."""

    def __init__(self) -> None:
        self.stage = Reader()
        self.log = MemoryLog(PARTITIONS)
        self.codes: list[int] = []
        self.runner = Runner(self.stage, KafkaSettings(prefix=""), self.log, exit=self.codes.append)
        consumer = self.runner._app.consumer
        consumer.begin, consumer.commit = self._begin, self._commit

    async def assign(self) -> None:
        for partition in range(PARTITIONS):
            await self.log.produce(Outgoing(FRAMES, partition, b"before"))
        await self.runner._assigned(None, {TP(FRAMES, partition) for partition in range(PARTITIONS)})

    async def stop(self) -> None:
        """Stop, with an app that has ended."""
        done = asyncio.create_task(asyncio.sleep(0))
        await self.runner._stop(done, done)

    async def until(self, condition: Callable[[], bool]) -> None:
        deadline = Deadline.after(10.0)
        while not condition():
            assert not deadline.passed
            await asyncio.sleep(0.001)

    async def _begin(self, tp: TP, position: int, run: int) -> bool:
        return True

    async def _commit(self) -> bool:
        return True


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    rig = Rig()
    yield rig
    await rig.runner._drop_all()


async def test_partitions_are_opened_a_few_at_a_time_until_all_are(rig: Rig) -> None:
    await rig.assign()
    for opened in range(PARTITIONS):
        await rig.until(lambda left=PARTITIONS - opened: rig.stage.opening == min(left, OPEN_AT_ONCE))
        rig.stage.steps.release()
        await rig.until(lambda done=opened + 1: rig.stage.opened == done)
    assert rig.stage.most == OPEN_AT_ONCE


async def test_reading_back_state_counts_as_moving(rig: Rig) -> None:
    before = rig.runner._signs().moved
    await rig.assign()
    await rig.until(lambda: rig.stage.opening == OPEN_AT_ONCE)
    during = rig.runner._signs().moved
    rig.stage.steps.release()
    await rig.until(lambda: rig.stage.opened == 1 and rig.stage.opening == OPEN_AT_ONCE)
    assert before < during < rig.runner._signs().moved


async def test_it_is_rebalancing_from_when_partitions_go_until_some_come(rig: Rig) -> None:
    await rig.assign()
    assert not rig.runner._signs().rebalancing
    await rig.runner._revoked(None, set())
    assert not rig.runner._app.rebalancing  # Faust may have forgotten it
    assert rig.runner._signs().rebalancing
    await rig.assign()
    assert not rig.runner._signs().rebalancing


async def test_a_last_heartbeat_that_cannot_be_written_does_not_end_a_stop(rig: Rig) -> None:
    async def fail(*_: object) -> None:
        raise OSError("no broker")

    await rig.assign()
    rig.runner._app.producer.send = fail
    left = asyncio.Event()
    rig.runner._app.stop = lambda: asyncio.sleep(0, left.set())
    await rig.stop()
    assert left.is_set()
    assert rig.codes == []


@pytest.mark.parametrize(("joined", "codes"), [(False, [0]), (True, [EXIT_FAILED, 0])])
async def test_a_stop_that_takes_too_long_is_seen_although_faust_goes_on(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, joined: bool, codes: list[int]
) -> None:
    async def hang() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    monkeypatch.setattr(loop, "STOP_UNJOINED_S", 0.01)
    monkeypatch.setattr(loop, "STOP_S", 0.01)
    rig.runner._app.producer.send = lambda *_: asyncio.sleep(0, asyncio.sleep(0))
    rig.runner._app.stop = hang
    if joined:
        await rig.runner._assigned(None, set())
    await rig.stop()
    assert rig.codes == codes


async def test_an_error_that_cannot_be_logged_ends_the_process_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "_log", Deaf())
    codes: list[int] = []
    runner = Runner(EchoStage(), KafkaSettings(), MemoryLog(), exit=codes.append)
    with pytest.raises(BrokenPipeError):
        runner._failed(RunnerError("x"))
    with pytest.raises(BrokenPipeError):
        runner._partition_failed(RunnerError("x"), TopicPartition(FRAMES, 0), 7)
    assert codes == [EXIT_FAILED, EXIT_FAILED]
