"""Backtests that several processes share: each process runs the partitions that the consumer group assigns to it.

A process writes the figures of each partition that it has finished to the topic ``backtests``, in one transaction
with the consumer group's offset. When processes join or leave, each process keeps the partition that it is reading.
If a process ends before it has finished a partition, another process runs the partition from its begin. The backtest
is complete when the topic has figures for each partition of the period. All processes then return the same figures.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from contextlib import aclosing
from typing import Protocol

from pydantic import BaseModel, ConfigDict, ValidationError

from ingest.contract.codec import MAX_RECORD_BYTES
from ingest.contract.topics import BACKTESTS
from ingest.exceptions import Fenced
from ingest.kafka.log import Log, LogRecord, Outgoing, TopicPartition
from ingest.runtime import logs
from training.backtest.core import CandidateModels
from training.backtest.figures import BacktestFigures
from training.backtest.plan import BacktestPlan
from training.backtest.run import FrameRange, Progress, frame_ranges, run_range

_log = logs.get("training.backtest")

POLL_S = 1.0
"""Pause in seconds between two checks for partitions that other processes have finished."""


class PartitionShare(Protocol):
    """The partitions of the frame topics that the consumer group has assigned to this process."""

    reading: TopicPartition | None
    """The partition that this process is reading. The group leaves the partition to this process."""

    @property
    def assigned(self) -> Collection[TopicPartition]:
        """The assigned partitions; while the consumer group rebalances, only the partition that is being read."""

    async def changed(self, timeout_s: float) -> None:
        """Wait at most ``timeout_s`` seconds for the next change of the assigned partitions. Raise LogUnavailable."""


class PartitionFigures(BaseModel):
    """The figures of a backtest over one partition, as a record of the topic ``backtests``. ``plan`` is the digest of
    the backtest's plan."""

    model_config = ConfigDict(extra="ignore")

    plan: str
    member: str
    topic: str
    partition: int
    figures: BacktestFigures

    @property
    def tp(self) -> TopicPartition:
        """The topic and partition of the frames."""
        return TopicPartition(self.topic, self.partition)


def group_of(name: str, plan: BacktestPlan) -> str:
    """Return the name of the consumer group of a backtest. Processes with different plans are in different groups."""
    return f"backtest-{name}-{plan.digest[:12]}"


class BacktestMember:
    """One process of a shared backtest. ``member`` is a name that no other process of the backtest has."""

    def __init__(self, log: Log, plan: BacktestPlan, models: CandidateModels, name: str, member: str) -> None:
        self._log, self._plan, self._models, self._member = log, plan, models, member
        self._group = group_of(name, plan)
        self._position: int | None = None
        self._done: dict[TopicPartition, PartitionFigures] = {}

    async def run(self, share: PartitionShare, on_progress: Progress = lambda *_: None) -> BacktestFigures:
        """Run the assigned partitions until all partitions of the backtest are finished, and return the figures of
        all processes.

        Raise ConfigError, LogUnavailable or TooManyEvents.
        """
        ranges = {each.tp: each for each in await frame_ranges(self._log, self._plan) if each.length}
        total = sum(each.length for each in ranges.values())

        def report(read: int) -> None:
            on_progress(sum(ranges[tp].length for tp in self._done if tp in ranges) + read, total)

        while True:
            await self._catch_up()
            report(0)
            open_ranges = [each for tp, each in ranges.items() if tp not in self._done]
            if not open_ranges:
                return merged([self._done[tp] for tp in ranges])
            own = [each for each in open_ranges if each.tp in share.assigned]
            if own:
                await self._run_while_assigned(own[0], share, report)
            else:
                await share.changed(POLL_S)

    async def _run_while_assigned(
        self, frames: FrameRange, share: PartitionShare, report: Callable[[int], None]
    ) -> None:
        task = asyncio.create_task(self._run_one(frames, report))
        share.reading = frames.tp
        try:
            while not task.done() and frames.tp in share.assigned:
                waiting = asyncio.create_task(share.changed(POLL_S))
                await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
                if waiting.done():
                    waiting.result()
                waiting.cancel()
            if task.done() and not task.result():  # another process owns the partition: wait for the group's view
                await share.changed(POLL_S)
        finally:
            share.reading = None
            task.cancel()
            await asyncio.wait({task})

    async def _run_one(self, frames: FrameRange, report: Callable[[int], None]) -> bool:
        """Run the backtest on one partition, and write its figures.

        Return False, and write nothing, if another process has taken over the partition.
        """
        writer = await self._log.writer(f"{self._group}-{frames.tp.topic}-{frames.tp.partition}")
        try:
            await self._catch_up()  # the previous owner may have finished the partition before it was fenced
            if frames.tp in self._done:
                return True
            figures = await run_range(self._log, self._plan, self._models, frames, report)
            part = PartitionFigures(
                plan=self._plan.digest, member=self._member, **frames.tp._asdict(), figures=figures
            )
            record = Outgoing(BACKTESTS, 0, as_json(part), key=self._group.encode())
            await writer.write([record], self._group, {frames.tp: frames.stop})
            return True
        except Fenced:
            _log.info("backtest_partition_moved", partition=f"{frames.tp.topic}[{frames.tp.partition}]")
            return False
        finally:
            await writer.close()

    async def _catch_up(self) -> None:
        """Read the figures of partitions that processes have finished since the last call. If a partition has several
        records, the first one counts."""
        if self._position is None:
            self._position = (await self._log.beginnings(BACKTESTS))[0]
        end = (await self._log.ends(BACKTESTS))[0]
        if self._position >= end:
            return
        async with aclosing(self._log.read(BACKTESTS, 0, self._position, end)) as records:
            async for record in records:
                part = _part(record, self._plan.digest) if record.key == self._group.encode() else None
                if part:
                    self._done.setdefault(part.tp, part)
        self._position = end


def merged(parts: Collection[PartitionFigures]) -> BacktestFigures:
    """Return the figures of a backtest, merged from the figures of all partitions. The processes work at the same
    time, so the time of the longest process is returned."""
    members: dict[str, float] = {}
    figures = BacktestFigures()
    for part in parts:
        figures.merge(part.figures)
        members[part.member] = members.get(part.member, 0.0) + part.figures.wall_s
    figures.wall_s, figures.members = max(members.values(), default=0.0), len(members)
    return figures


def as_json(part: PartitionFigures) -> bytes:
    """Return the figures of a partition as JSON, without the gained and lost events if the record would be too
    large."""
    value = part.model_dump_json().encode()
    if len(value) <= MAX_RECORD_BYTES:
        return value
    for one in part.figures.rules.values():
        one.gained_events, one.lost_events = [], []
    return part.model_dump_json().encode()


def _part(record: LogRecord, digest: str) -> PartitionFigures | None:
    try:
        part = PartitionFigures.model_validate_json(record.value)
    except ValidationError:  # of a version with other figures
        return None
    return part if part.plan == digest else None
