"""Backtests that several members share: each member runs the partitions that the consumer group assigns to it.

A member writes the figures of each partition that it has finished to the topic ``backtests``, in a transaction with
the group's offset. A partition that moves to another member in the middle begins again there. The figures are
complete when the topic has one record for each partition of the period. Every member then has the same figures.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from contextlib import aclosing
from typing import Protocol

from pydantic import BaseModel, ConfigDict, ValidationError

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
"""Pause in s between two checks for partitions that other members have finished."""


class PartitionShare(Protocol):
    """The partitions of frames that the consumer group has assigned to this member."""

    @property
    def assigned(self) -> Collection[TopicPartition]:
        """The assigned partitions; empty while the group rebalances."""

    async def changed(self, timeout_s: float) -> None:
        """Wait for the next assignment or revocation, at most ``timeout_s`` seconds. Raise LogUnavailable."""


class PartitionFigures(BaseModel):
    """The figures of one partition, as a record of ``backtests``. ``plan`` is the digest of the backtest's plan."""

    model_config = ConfigDict(extra="ignore")

    plan: str
    member: str
    topic: str
    partition: int
    figures: BacktestFigures

    @property
    def tp(self) -> TopicPartition:
        """The partition of frames."""
        return TopicPartition(self.topic, self.partition)


def group_of(name: str, plan: BacktestPlan) -> str:
    """Return the consumer group of a backtest. Members with another plan are in another group."""
    return f"backtest-{name}-{plan.digest[:12]}"


class BacktestMember:
    """One member of a shared backtest. ``member`` is a name that no other member has."""

    def __init__(self, log: Log, plan: BacktestPlan, models: CandidateModels, name: str, member: str) -> None:
        self._log, self._plan, self._models, self._member = log, plan, models, member
        self._group = group_of(name, plan)
        self._position: int | None = None
        self._done: dict[TopicPartition, PartitionFigures] = {}

    async def run(self, share: PartitionShare, on_progress: Progress = lambda *_: None) -> BacktestFigures:
        """Run assigned partitions until all partitions are finished, and return the figures of all members.

        Raise LogUnavailable or TooManyEvents.
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
        try:
            while not task.done() and frames.tp in share.assigned:
                waiting = asyncio.create_task(share.changed(POLL_S))
                await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
                if waiting.done():
                    waiting.result()
                waiting.cancel()
            if task.done():
                task.result()
        finally:
            task.cancel()
            await asyncio.wait({task})

    async def _run_one(self, frames: FrameRange, report: Callable[[int], None]) -> None:
        """Run one partition, and write its figures unless another member has taken over the partition."""
        writer = await self._log.writer(f"{self._group}-{frames.tp.topic}-{frames.tp.partition}")
        try:
            await self._catch_up()  # the previous owner may have finished the partition before it was fenced
            if frames.tp in self._done:
                return
            figures = await run_range(self._log, self._plan, self._models, frames, report)
            part = PartitionFigures(
                plan=self._plan.digest, member=self._member, **frames.tp._asdict(), figures=figures
            )
            record = Outgoing(BACKTESTS, 0, part.model_dump_json().encode(), key=self._group.encode())
            await writer.write([record], self._group, {frames.tp: frames.stop})
        except Fenced:
            _log.info("backtest_partition_moved", partition=f"{frames.tp.topic}[{frames.tp.partition}]")
        finally:
            await writer.close()

    async def _catch_up(self) -> None:
        """Read the partitions that members have finished since the last call. The first record of each counts."""
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
    """Return the figures of all partitions. The members worked at the same time, so the longest time counts."""
    members: dict[str, float] = {}
    figures = BacktestFigures()
    for part in parts:
        figures.merge(part.figures)
        members[part.member] = members.get(part.member, 0.0) + part.figures.wall_s
    figures.wall_s, figures.members = max(members.values(), default=0.0), len(members)
    return figures


def _part(record: LogRecord, digest: str) -> PartitionFigures | None:
    try:
        part = PartitionFigures.model_validate_json(record.value)
    except ValidationError:  # of a version with other figures
        return None
    return part if part.plan == digest else None
