"""The contract of every runner: in memory, and on Faust with a real Kafka and real kills."""

from __future__ import annotations

import abc
import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator

import pytest

from ingest.contract.topics import BATCHES, FRAMES
from ingest.kafka import topicadmin
from ingest.kafka.kafkalog import KafkaLog
from ingest.kafka.log import Log, Outgoing, TopicPartition
from ingest.kafka.memorylog import MemoryLog
from ingest.kafka.settings import KafkaSettings
from ingest.runtime.clock import Deadline, ManualClock
from ingest.runtime.service import EXIT_FAILED
from stream.runner.memory import MemoryRunner
from tests.stream.echo_worker import HOLD, POISON, PoisonStage

PARTITIONS = 3
PATIENCE_S = 60.0
"""Maximum time to wait for a worker. A worker starts within three seconds on an idle machine, and later on a busy
one."""


class Harness(abc.ABC):
    """A log and one worker of the stage on it."""

    log: Log

    @abc.abstractmethod
    async def start(self) -> None:
        """Start a worker, which continues at the offsets that the last worker committed."""

    @abc.abstractmethod
    async def written(self, at_least: int) -> None:
        """Wait until at least ``at_least`` records are on the output topic."""

    @abc.abstractmethod
    async def kill(self) -> None:
        """Kill the worker without a clean-up."""

    @abc.abstractmethod
    async def stop(self) -> None:
        """Ask the worker to stop, and assert that it stops cleanly."""

    @abc.abstractmethod
    async def fails(self) -> None:
        """Assert that the worker ends by itself with an error."""

    async def feed(self, first: int, last: int) -> None:
        """Write the numbers from ``first`` up to but not including ``last``, in turn over the partitions."""
        for number in range(first, last):
            await self.feed_value(number % PARTITIONS, str(number).encode())

    async def feed_value(self, partition: int, value: bytes) -> None:
        headers = {"number": value}
        await self.log.produce(Outgoing(FRAMES, partition, value, key=b"camera", headers=headers))

    async def echoes(self) -> list[list[int]]:
        """Return the numbers on the output topic, per partition."""
        ends = await self.log.ends(BATCHES)
        found = []
        for partition in range(PARTITIONS):
            records = [r async for r in self.log.read(BATCHES, partition, 0, ends[partition])]
            assert all(r.key == b"camera" and r.headers["number"] == r.value for r in records)
            found.append([int(r.value) for r in records])
        return found


class MemoryHarness(Harness):
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.log: Log = MemoryLog(PARTITIONS, self.clock)
        self.runner: MemoryRunner | None = None

    async def start(self) -> None:
        self.runner = MemoryRunner(PoisonStage(hold=HOLD, clock=self.clock), self.log, self.clock)

    async def written(self, at_least: int) -> None:
        assert self.runner
        await self.runner.run()
        await self.runner.advance(1.0)
        assert sum((await self.log.ends(BATCHES)).values()) >= at_least

    async def kill(self) -> None:
        self.runner = None

    async def stop(self) -> None:
        assert self.runner
        await self.runner.stop()

    async def fails(self) -> None:
        assert self.runner
        with pytest.raises(RuntimeError, match="poisoned"):
            await self.runner.run()


class FaustHarness(Harness):
    def __init__(self, settings: KafkaSettings) -> None:
        self.settings = settings
        self.log: Log = KafkaLog(settings, "test")
        self.process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        await self.kill()
        env = {**os.environ, **self.settings.to_env()}
        command = [sys.executable, "-m", "tests.stream.echo_worker"]
        self.process = await asyncio.to_thread(subprocess.Popen, command, env=env)

    async def written(self, at_least: int) -> None:
        deadline = Deadline.after(PATIENCE_S)
        while sum((await self.log.ends(BATCHES)).values()) < at_least:
            assert not deadline.passed
            assert self.process is None or self.process.poll() is None
            await asyncio.sleep(0.02)

    async def kill(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()

    async def stop(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(self.process.wait, PATIENCE_S) == 0

    async def fails(self) -> None:
        assert self.process
        assert await asyncio.to_thread(self.process.wait, PATIENCE_S) == EXIT_FAILED


class RunnerContract:
    """Tests that every runner passes."""

    async def test_the_stream_runner_processes_every_record_in_offset_order(self, harness: Harness) -> None:
        await harness.start()
        await harness.feed(0, 31)  # the last groups are not full: the deadline flushes them
        await harness.written(31)
        assert await harness.echoes() == _dealt(31)
        await harness.stop()

    async def test_a_stopping_stream_runner_commits_the_records_that_it_flushes(self, harness: Harness) -> None:
        await harness.start()
        await harness.feed(0, 20)
        await harness.written(18)
        await harness.stop()
        await harness.start()
        await harness.feed(20, 40)
        await harness.written(40)
        await harness.stop()
        assert await harness.echoes() == _dealt(40)  # each record exactly once: the stop left no record uncommitted

    async def test_a_killed_stream_runner_loses_no_record(self, harness: Harness) -> None:
        await harness.start()
        await harness.feed(0, 25)
        await harness.written(9)
        await harness.kill()
        await harness.feed(25, 50)
        await harness.start()
        deadline = Deadline.after(PATIENCE_S)
        expected = [set(part) for part in _dealt(50)]
        while [set(part) for part in await harness.echoes()] != expected:
            assert not deadline.passed
            await harness.written(0)
            await asyncio.sleep(0.02)
        await harness.stop()
        assert [_without_repeats(part) for part in await harness.echoes()] == _dealt(50)

    async def test_a_record_that_raises_an_error_ends_the_worker_and_is_not_committed(self, harness: Harness) -> None:
        await harness.feed(0, 7)
        await harness.feed_value(1, POISON)  # the record at offset 2 of partition 1, behind the numbers 1 and 4
        await harness.feed(7, 20)
        await harness.start()
        await harness.fails()
        assert (await harness.log.committed("echo", TopicPartition(FRAMES, 1)) or 0) <= 2


class TestMemoryRunner(RunnerContract):
    @pytest.fixture
    def harness(self) -> Harness:
        return MemoryHarness()


@pytest.mark.kafka
class TestFaustRunner(RunnerContract):
    @pytest.fixture
    async def harness(self, kafka: str, prefix: str) -> AsyncIterator[Harness]:
        settings = KafkaSettings(bootstrap=kafka, prefix=prefix)
        await topicadmin.create(settings, PARTITIONS)
        harness = FaustHarness(settings)
        yield harness
        await harness.kill()
        await harness.log.close()
        await topicadmin.remove(settings, prefix)


def _dealt(numbers: int) -> list[list[int]]:
    return [list(range(partition, numbers, PARTITIONS)) for partition in range(PARTITIONS)]


def _without_repeats(values: list[int]) -> list[int]:
    """Drop the repeats of a restart, as consumers downstream do."""
    kept: list[int] = []
    for value in values:
        if not kept or value > kept[-1]:
            kept.append(value)
    return kept
