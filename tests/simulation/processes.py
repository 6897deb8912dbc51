"""The processes of a simulation: stages in the memory runner, and engine nodes, on a log that can kill them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from engines.exceptions import InferenceFailed
from engines.node.scheduler import MergedBatch, Scheduler
from engines.node.takeover import OwnedPartition, take_over
from ingest.contract.groups import ENGINES
from ingest.contract.identity import FrameId
from ingest.contract.records import Detection
from ingest.kafka.log import Log, Outgoing, Position, TopicPartition, Writer
from ingest.kafka.memorylog import MemoryLog
from ingest.runtime.clock import ManualClock
from ingest.site import PipelineConfig
from stream.runner.memory import MemoryRunner
from stream.runner.processor import Processor, Stage
from tests.engines.node.batches import EvenModels

MODEL_ROW_S = 0.02
"""Device time of one image in seconds."""
MAX_ROWS = 8


class Killed(BaseException):
    """The process was killed. A base exception, so that no handler of the process catches it."""


class SimulatedLog(MemoryLog):
    """An in-memory log that tells the end of a partition at once."""

    def end(self, tp: TopicPartition) -> int:
        """Return the offset after the last record of a partition."""
        return len(self._records[tp])


class ProcessLog:
    """The log as one process uses it.

    A commit is held back until ``commit``, because a real process commits a few times a second. After ``kill_at``,
    the process is killed at its n-th write, with or without the effect of this write.
    """

    def __init__(self, log: SimulatedLog) -> None:
        self._log = log
        self._left: int | None = None
        self._applied = True
        self._commits: dict[tuple[str, TopicPartition], int] = {}

    def __getattr__(self, name: str) -> Any:
        """Return a method of the log."""
        return getattr(self._log, name)

    def kill_at(self, writes: int, *, applied: bool) -> None:
        """Kill the process at its n-th write from now on."""
        self._left, self._applied = writes, applied

    async def produce(self, record: Outgoing) -> Position:
        """Write a record."""
        self._before()
        position = await self._log.produce(record)
        self._after()
        return position

    async def writer(self, transactional_id: str) -> Writer:
        """Open a transactional writer."""
        return _ProcessWriter(self, await self._log.writer(transactional_id))

    async def commit(self) -> None:
        """Commit the positions of the finished records."""
        commits, self._commits = self._commits, {}
        for (group, tp), offset in commits.items():
            await (await self._log.writer("commits")).write((), group, {tp: offset})

    def forget_commits(self) -> None:
        """Drop the positions that are not committed, because another process may own the partitions now."""
        self._commits = {}

    def _before(self) -> None:
        if self._left is not None:
            self._left -= 1
            if self._left <= 0 and not self._applied:
                raise Killed

    def _after(self) -> None:
        if self._left is not None and self._left <= 0:
            raise Killed


class _ProcessWriter:
    def __init__(self, process: ProcessLog, writer: Writer) -> None:
        self._process, self._writer = process, writer

    async def write(self, records: Sequence[Outgoing], group: str, offsets: Mapping[TopicPartition, int]) -> None:
        if not records and group != ENGINES:
            self._process._commits |= {(group, tp): offset for tp, offset in offsets.items()}
            return
        self._process._before()
        await self._writer.write(records, group, offsets)
        self._process._after()

    async def close(self) -> None:
        await self._writer.close()


class InThread:
    """A stage whose partitions are opened in the event loop of another thread.

    The stage ``alerts`` reads frames through the loop that opened the partition, and waits for the answer. With the
    loop of the simulation, it would wait for itself.
    """

    def __init__(self, stage: Stage, loop: asyncio.AbstractEventLoop) -> None:
        self._stage, self._loop = stage, loop
        self.name, self.topics = stage.name, stage.topics

    async def open(self, tp: TopicPartition, position: int, log: Log) -> Processor:
        """Create the state of a partition."""
        return asyncio.run_coroutine_threadsafe(self._stage.open(tp, position, log), self._loop).result()


class StageProcess:
    """A process of a stream stage, which runs in the memory runner."""

    def __init__(self, stage: Stage, log: SimulatedLog, clock: ManualClock) -> None:
        self.log = ProcessLog(log)
        self.tps: set[TopicPartition] = set()
        self._runner = MemoryRunner(stage, self.log, clock)  # type: ignore[arg-type]

    async def assign(self, tps: set[TopicPartition]) -> None:
        """Own partitions from now on."""
        self.tps = set(tps)

    async def revoke(self, *, committed: bool) -> None:
        """Lose all partitions. The finished records are committed if the commit succeeds."""
        for tp in self.tps:
            self._runner.release(tp)
        self.tps = set()
        if committed:
            await self.log.commit()
        self.log.forget_commits()

    async def step(self, tp: TopicPartition, most: int | None) -> int:
        """Process waiting records of a partition. Return their number."""
        return await self._runner.step(tp, most)

    async def rest(self, batches: int | None) -> int:
        """Do the work that is due without a new record."""
        await self._runner.tick()
        return 0

    def waits(self, tp: TopicPartition) -> bool:
        """Return whether records of a partition wait."""
        return (self._runner.position(tp) or 0) < self.log.end(tp)


class NodeProcess:
    """An engine node, whose model finds the objects of the simulated scenes."""

    def __init__(
        self,
        log: SimulatedLog,
        clock: ManualClock,
        pipelines: Sequence[PipelineConfig],
        objects: Mapping[FrameId, tuple[Detection, ...]],
        failing: frozenset[FrameId],
    ) -> None:
        self.log = ProcessLog(log)
        self._clock, self._objects, self._failing = clock, objects, failing
        models = EvenModels(MAX_ROWS, MODEL_ROW_S)
        models.configs = {pipeline.name: pipeline for pipeline in pipelines}
        self._names = frozenset(models.configs)
        self._scheduler = Scheduler(models)
        self._owned: dict[TopicPartition, OwnedPartition] = {}

    @property
    def tps(self) -> set[TopicPartition]:
        """The partitions that the node believes to own."""
        return set(self._owned)

    async def assign(self, tps: set[TopicPartition]) -> None:
        """Take partitions over."""
        taken = await take_over(self.log, sorted(tps), self._clock)  # type: ignore[arg-type]
        self._owned = {owned.tp: owned for owned in taken}

    async def revoke(self, *, committed: bool) -> None:
        """Release all partitions, without the results that are not written yet."""
        for tp, owned in self._owned.items():
            self._scheduler.drop(tp)
            await owned.close()
        self._owned = {}

    async def step(self, tp: TopicPartition, most: int | None) -> int:
        """Take waiting batches of a partition. Return their number."""
        owned, end = self._owned[tp], self.log.end(tp)
        taken = 0
        async for record in self.log.read(*tp, owned.next, end if most is None else min(end, owned.next + most)):
            job = owned.take(record, self._names)
            taken += 1
            if not job.settled:
                self._scheduler.add(tp, job, self._clock.now_ns())
        return taken

    async def rest(self, batches: int | None) -> int:
        """Classify at most ``batches`` merged batches, and write the results that are due. Raise Fenced."""
        if not any(owned.in_flight or owned.uncommitted for owned in self._owned.values()):
            return 0
        for _ in itertools.count() if batches is None else range(batches):
            if not (merged := self._scheduler.next(self._clock.now_ns())):
                break
            self._classify(merged)
        for owned in list(self._owned.values()):
            now_s = self._clock.monotonic()
            while (due_s := owned.due(now_s, 0.0)) is not None and due_s <= now_s:
                await owned.write(self._clock.now_ns, now_s)
        return 0

    def waits(self, tp: TopicPartition) -> bool:
        """Return whether batches of a partition wait."""
        return self._owned[tp].next < self.log.end(tp)

    def _classify(self, merged: MergedBatch) -> None:
        for job in merged.jobs:
            job.model = "simulated@1"
        for task in merged.tasks:
            if task.item.id in self._failing:
                task.error = InferenceFailed("the simulated model fails on this frame")
            else:
                task.detections = list(self._objects[task.item.id])
        merged.took.compute = merged.expected_s
        self._scheduler.finished(merged)


MakeProcess = Callable[[], StageProcess | NodeProcess]
