"""Tests of the runner on a fake group member."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from ingest.contract.topics import BATCHES, FRAMES
from ingest.kafka import outage
from ingest.kafka.log import Log, Outgoing, TopicPartition
from ingest.kafka.memorylog import MemoryLog
from ingest.kafka.outage import KafkaWatch
from ingest.kafka.settings import KafkaSettings
from ingest.runtime.service import EXIT_AGAIN, EXIT_FAILED
from stream.exceptions import RunnerError
from stream.runner import loop
from stream.runner.backpressure import Downstream
from stream.runner.echo import EchoProcessor, EchoStage
from stream.runner.loop import Runner
from stream.runner.partition import OPEN_AT_ONCE
from tests.stream.runner.fakemember import FakeMember, until

PARTITIONS = 5


class ClosedLogger:
    """A logger whose output is closed."""

    def error(self, *_: object, **__: object) -> None:
        raise BrokenPipeError


class SteppedStage(EchoStage):
    """A stage that reads back its topic; each record waits for a permit of ``steps``."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = asyncio.Semaphore(0)
        self.opening = 0
        self.most = 0
        self.opened = 0

    async def open(self, tp: TopicPartition, position: int, log: Log) -> EchoProcessor:
        self.opening += 1
        self.most = max(self.most, self.opening)
        async for _ in log.read(tp.topic, tp.partition, 0, 1):
            await self.steps.acquire()
        self.opening -= 1
        self.opened += 1
        return EchoProcessor(self)


class RunnerRig:
    """A runner on a fake member. Each partition has one record to be read back."""

    def __init__(self) -> None:
        self.stage = SteppedStage()
        self.log = MemoryLog(PARTITIONS)
        self.codes: list[int] = []
        self.runner = Runner(
            self.stage, KafkaSettings(), self.log, make_member=self._make_member, exit=self.codes.append
        )

    def _make_member(self, *_: object, **__: object) -> FakeMember:
        self.member = FakeMember()
        self.member.acknowledge_at_once = True
        return self.member

    async def assign(self) -> None:
        for partition in range(PARTITIONS):
            await self.log.produce(Outgoing(FRAMES, partition, b"before"))
        await self.runner.assigned([TopicPartition(FRAMES, partition) for partition in range(PARTITIONS)])

    async def run_and_stop(self) -> None:
        """Request a stop, start the runner, and return when it has stopped."""
        stop = asyncio.Event()
        stop.set()
        await self.runner.run(stop)


@pytest.fixture
async def rig() -> AsyncIterator[RunnerRig]:
    rig = RunnerRig()
    yield rig
    await rig.runner.revoked()


async def test_at_most_two_partitions_restore_their_state_at_the_same_time(rig: RunnerRig) -> None:
    await rig.assign()
    for opened in range(PARTITIONS):
        await until(lambda left=PARTITIONS - opened: rig.stage.opening == min(left, OPEN_AT_ONCE))
        rig.stage.steps.release()
        await until(lambda done=opened + 1: rig.stage.opened == done)
    assert rig.stage.most == OPEN_AT_ONCE


async def test_restoring_partition_state_counts_as_progress_for_the_watchdog(rig: RunnerRig) -> None:
    before = rig.runner.signs().progress
    await rig.assign()
    await until(lambda: rig.stage.opening == OPEN_AT_ONCE)
    during = rig.runner.signs().progress
    rig.stage.steps.release()
    await until(lambda: rig.stage.opened == 1 and rig.stage.opening == OPEN_AT_ONCE)
    assert before < during < rig.runner.signs().progress


async def test_the_watchdog_gets_the_number_of_requests_that_kafka_did_not_answer(rig: RunnerRig) -> None:
    rig.runner._watch.failures = 3
    assert rig.runner.signs().kafka_failures == 3


async def test_a_failed_last_heartbeat_does_not_prevent_a_worker_from_stopping(rig: RunnerRig) -> None:
    await rig.assign()
    rig.member.send_error = OSError("no broker")
    await rig.run_and_stop()
    assert rig.member.stopped.is_set()
    assert rig.codes == []


@pytest.mark.parametrize(("joined", "codes"), [(False, [0]), (True, [EXIT_FAILED, 0])])
async def test_a_worker_stop_past_its_deadline_ends_the_process_although_faust_ignores_a_cancellation(
    rig: RunnerRig, monkeypatch: pytest.MonkeyPatch, joined: bool, codes: list[int]
) -> None:
    async def hang() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        rig.member.stopped.set()

    monkeypatch.setattr(loop, "STOP_UNJOINED_S", 0.01)
    monkeypatch.setattr(loop, "STOP_S", 0.01)
    monkeypatch.setattr(rig.member, "stop", hang)
    if joined:
        await rig.runner.assigned([])
    await rig.run_and_stop()
    assert rig.codes == codes


async def test_a_worker_stop_during_an_outage_ends_in_seconds_with_the_restart_status(
    rig: RunnerRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outage, "STOP_IN_OUTAGE_S", 0.001)
    monkeypatch.setattr(rig.member, "stop", asyncio.Event().wait)
    await rig.runner.assigned([])
    running = asyncio.create_task(rig.run_and_stop())
    await until(lambda: rig.runner._stopping)
    monkeypatch.setattr(KafkaWatch, "out", True)  # the outage begins after the stop
    await until(running.done)
    assert rig.codes == [EXIT_AGAIN]
    rig.member.stopped.set()


async def test_an_error_ends_the_stream_worker_even_if_the_error_cannot_be_logged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loop, "_log", ClosedLogger())
    codes: list[int] = []
    runner = Runner(EchoStage(), KafkaSettings(), MemoryLog(), exit=codes.append)
    with pytest.raises(BrokenPipeError):
        runner.failed(RunnerError("x"))
    with pytest.raises(BrokenPipeError):
        runner._partition_failed(RunnerError("x"), TopicPartition(FRAMES, 0), 7)
    assert codes == [EXIT_FAILED, EXIT_FAILED]


def test_a_restarted_static_group_member_keeps_its_client_id() -> None:
    first, second, other = (
        Runner(EchoStage(), KafkaSettings(), MemoryLog(), instance=name, make_member=FakeMember).client_id  # type: ignore[arg-type]
        for name in ("local", "local", "")
    )
    assert first == second == f"{EchoStage.name}-local"
    assert other != first


async def test_a_partition_is_flagged_as_behind_while_its_downstream_lag_exceeds_the_usual_lag(
    rig: RunnerRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "CHECK_LAG_S", 0.0)
    monkeypatch.setattr(loop, "CHECK_BEHIND_S", 0.0)
    monkeypatch.setattr(rig.stage, "downstream", Downstream("engines", BATCHES, 2, 100), raising=False)
    await rig.assign()
    for partition, count in ((0, 2), (1, 3)):
        for _ in range(count):
            await rig.log.produce(Outgoing(BATCHES, partition, b""))
    checking = asyncio.create_task(rig.runner._hold_back())
    await until(lambda: rig.runner._loops[TopicPartition(FRAMES, 1)].behind)
    assert not rig.runner._loops[TopicPartition(FRAMES, 0)].behind
    writer = await rig.log.writer("engines-1")
    await writer.write([], "engines", {TopicPartition(BATCHES, 1): 1})
    await until(lambda: not rig.runner._loops[TopicPartition(FRAMES, 1)].behind)
    checking.cancel()
