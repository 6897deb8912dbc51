"""Run a backtest over the partitions of the topics ``frames`` and ``frames.late``. Nothing is written to the log."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from ingest.contract.topics import FRAMES, FRAMES_LATE
from ingest.kafka.log import Log, LogRecord, TopicPartition
from stream.explain.comparison import EventComparison
from training.backtest.core import CandidateModels, PreparedFrames, ReplayCore, note
from training.backtest.figures import BacktestFigures
from training.backtest.plan import BacktestPlan
from training.backtest.stored import StoredResults

CHUNK = 64
"""Number of frames that are prepared at once, while the previous frames are classified. 64 frames of half a megabyte
take 32 MB."""

Progress = Callable[[int, int], None]
"""A callback that gets the number of offsets read so far and the total number of offsets to read."""


@dataclass(frozen=True, slots=True)
class FrameRange:
    """The offsets of one partition to read: from ``warm`` only to build up state, from ``start`` for the figures."""

    tp: TopicPartition
    warm: int
    start: int
    stop: int

    @property
    def length(self) -> int:
        """Number of offsets to read."""
        return max(0, self.stop - self.warm) if self.stop > self.start else 0


async def frame_ranges(log: Log, plan: BacktestPlan) -> list[FrameRange]:
    """Return the offsets of the period in each partition of frames. Raise LogUnavailable."""
    found = []
    for topic in (FRAMES, FRAMES_LATE):
        for partition, end in sorted((await log.ends(topic)).items()):
            tp = TopicPartition(topic, partition)
            times = (plan.warm_ms, plan.since_ms, plan.until_ms)
            warm, start, stop = [min(await log.offset_at(tp, at_ms), end) for at_ms in times]
            found.append(FrameRange(tp, warm, start, stop))
    return found


async def backtest(
    log: Log, plan: BacktestPlan, models: CandidateModels, on_progress: Progress = lambda *_: None
) -> BacktestFigures:
    """Run all partitions, one after another, and return the figures.

    Raise ConfigError, LogUnavailable or TooManyEvents.
    """
    ranges, figures, done = await frame_ranges(log, plan), BacktestFigures(), 0
    total = sum(each.length for each in ranges)
    for each in ranges:
        figures.merge(
            await run_range(log, plan, models, each, lambda read, done=done: on_progress(done + read, total))  # type: ignore[misc]
        )
        done += each.length
    on_progress(total, total)
    return figures


async def run_range(
    log: Log,
    plan: BacktestPlan,
    models: CandidateModels,
    frames: FrameRange,
    on_progress: Callable[[int], None] = lambda _: None,
) -> BacktestFigures:
    """Run the frames of one partition, and return the figures. Raise ConfigError, LogUnavailable or TooManyEvents."""
    figures = BacktestFigures()
    if not frames.length:
        return figures
    cpu_s, started_s = time.process_time(), time.perf_counter()
    run = _PartitionRun(log, plan, ReplayCore(frames.tp, plan, models), frames, figures)
    try:
        await run.run(on_progress)
        await run.comparison.compare(log, plan.rule_set.cameras, plan.since_ms)
    finally:
        await run.stored.close()
    figures.cpu_s, figures.wall_s = time.process_time() - cpu_s, time.perf_counter() - started_s
    return figures


class _PartitionRun:
    """Prepares the next frames in one thread while another thread classifies the previous frames."""

    def __init__(
        self, log: Log, plan: BacktestPlan, core: ReplayCore, frames: FrameRange, figures: BacktestFigures
    ) -> None:
        self._log, self._core, self._frames, self._figures = log, core, frames, figures
        self.stored = StoredResults(log, frames.tp, plan)
        self.comparison = EventComparison(figures.rules, plan.untested)  # type: ignore[arg-type]
        self._captured: dict[tuple[str, str], tuple[int, int]] = {}
        self._warming = BacktestFigures()
        """Takes the figures of the frames before the period."""

    async def run(self, on_progress: Callable[[int], None]) -> None:
        """Read all frames. Raise ConfigError, LogUnavailable or TooManyEvents."""
        await self.stored.open()
        preparing: asyncio.Task[PreparedFrames] | None = None
        try:
            async with aclosing(self._chunks()) as chunks:
                async for records in chunks:
                    prepared = await preparing if preparing else None
                    preparing = asyncio.create_task(asyncio.to_thread(self._core.prepare, records))
                    if prepared:
                        await self._finish(prepared)
                        on_progress(records[0].offset - self._frames.warm)
            if preparing:
                await self._finish(await preparing)
        finally:
            if preparing:
                await asyncio.wait({preparing})
        self._figures.recorded_s = sum(last - first for first, last in self._captured.values()) / 1e9

    async def _finish(self, prepared: PreparedFrames) -> None:
        live = await self.stored.take(prepared.keys)
        is_warm = prepared.records[0].offset >= self._frames.start
        figures = self._figures if is_warm else self._warming
        replaying = asyncio.create_task(asyncio.to_thread(self._core.replay, prepared, live, figures))
        try:
            replayed = await asyncio.shield(replaying)
        finally:  # the thread goes on after a cancellation, and must not use the models beside the next partition
            await asyncio.wait({replaying})
        for one in replayed:
            if not is_warm:
                continue
            note(figures, one)
            result = one.result
            first, _ = self._captured.setdefault((result.camera, result.lane), (result.captured_ns,) * 2)
            self._captured[result.camera, result.lane] = first, result.captured_ns
            self.comparison.note(result)
            for event in one.events:
                self.comparison.add(event)

    async def _chunks(self) -> AsyncGenerator[Sequence[LogRecord], None]:
        """Yield the frames of the tested cameras, in chunks. A chunk has only frames of the period, or only frames
        before the period."""
        for begin, end in ((self._frames.warm, self._frames.start), (self._frames.start, self._frames.stop)):
            chunk: list[LogRecord] = []
            async with aclosing(self._log.read(*self._frames.tp, begin, end)) as records:
                async for record in records:
                    if self._core.wants(record):
                        chunk.append(record)
                    if len(chunk) == CHUNK:
                        yield chunk
                        chunk = []
            if chunk:
                yield chunk
