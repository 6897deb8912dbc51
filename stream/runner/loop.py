"""The runner: runs a stage on Kafka until a signal or an error ends it.

One process is one member of the consumer group of the stage. The member (``faust/member.py``) fetches the records of
the assigned partitions. Each partition has its own loop (``partition.py``), and the member commits the position of
that loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

from prometheus_client import CollectorRegistry

from ingest.exceptions import LogUnavailable, StoppedInOutage
from ingest.kafka.log import Log, LogRecord, Outgoing, TopicPartition
from ingest.kafka.membership import MemberGuard
from ingest.kafka.outage import KafkaWatch
from ingest.kafka.settings import KafkaSettings
from ingest.runtime import logs
from ingest.runtime.clock import Clock, SystemClock
from ingest.runtime.cpus import cpu_count
from ingest.runtime.heartbeat import HeartbeatWriter, instance_name
from ingest.runtime.service import EXIT_AGAIN, EXIT_FAILED, Service
from ingest.site.topic.view import Validate, accept
from stream.exceptions import RunnerError, Stuck
from stream.metrics import StreamMetrics
from stream.runner.acks import FetchNumber
from stream.runner.backpressure import CHECK_BEHIND_S, CHECK_LAG_S, BackPressure, BackPressured, downstream_lags
from stream.runner.faust import FaustMember
from stream.runner.partition import OPEN_AT_ONCE, PartitionLoop, Shared
from stream.runner.processor import Configurable, Stage
from stream.runner.watchdog import CountingLog, Signs, Watchdog

_log = logs.get("stream.runner")

STOP_S = 20.0
"""Maximum time in seconds of a clean stop: finish the records in process, await acknowledgements, commit, leave the
group. A clean stop must take less than the 30 s after which orchestrators kill a process."""
STOP_UNJOINED_S = 3.0
"""Maximum time of a stop before the first assignment, when no record is in process."""

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
MMAP_BYTES = 64 * 1024 * 1024
"""Size in bytes below which the C library takes a memory block from the heap: four times the largest record."""
TRIM_BYTES = 256 * 1024 * 1024
"""Bytes of free memory kept at the end of the heap, enough for the records in flight of a busy process."""

StageFactory = Callable[[Log], Awaitable[Stage]]
"""A function that creates a stage. The function may first read the ``config`` topic."""


async def serve(
    service: Service,
    make: StageFactory,
    stop: asyncio.Event,
    instance: str = "",
    validate: Validate = accept,
) -> None:
    """Run a stage until ``stop`` is set. While a ``Configurable`` stage runs, configure the stage whenever the
    ``config`` topic changes.

    ``instance`` is the lasting name of this member in its group (static membership, KIP-345). A process that restarts
    with the same ``instance`` gets its partitions back at once, without waiting for the session of the ended process
    to expire. Two running processes must not have the same ``instance``.

    Raise TopicMismatch when the broker's topics differ from the contract, LogUnavailable if no broker answers. Any
    error inside the stage ends the process at once, with the exit status ``EXIT_FAILED``.
    """
    keep_freed_memory()
    async with service.open_log(stop) as log:
        stage = await service.watch.unless_stopped(stop, make(log))
        metrics = StreamMetrics(service.registry, stage.name)
        runner = Runner(stage, service.settings, log, metrics=metrics, instance=instance, watch=service.watch)
        service.health.ready_when(runner.unready_reason)
        guard = MemberGuard(log, stage.name, stage.topics, runner.client_id, metrics.idle_member)
        async with _following(service, stage, validate, runner.failed), guard.watching(stop):
            await runner.run(stop)


@contextlib.asynccontextmanager
async def _following(
    service: Service, stage: Stage, validate: Validate, failed: Callable[[BaseException], None]
) -> AsyncIterator[None]:
    """Configure a stage whenever the ``config`` topic changes. Pass an unexpected error to ``failed``."""
    if not isinstance(stage, Configurable):
        yield
        return

    def ended(task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error:
            failed(error)

    following = asyncio.create_task(service.follow_config(stage.config, stage.configure, validate))
    following.add_done_callback(ended)
    try:
        yield
    finally:
        following.cancel()
        await asyncio.wait({following})


def keep_freed_memory() -> bool:
    """Set the C library to reuse large freed memory blocks.

    Return False without a change if the C library is not glibc. By default, glibc gets the memory of each picture
    from the system and returns the memory as soon as the picture is freed, so each new picture causes page faults.
    Without this function, page faults took two fifths of the CPU time of preparing a 416×416 batch. See mallopt(3).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        _log.info("memory_blocks_not_reused", reason="the C library is not glibc")
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, MMAP_BYTES) and mallopt(_M_TRIM_THRESHOLD, TRIM_BYTES))


class Runner:
    """One member of the consumer group of a stage. ``make_member`` and ``exit`` are parameters for tests only."""

    def __init__(
        self,
        stage: Stage,
        settings: KafkaSettings,
        log: Log,
        *,
        metrics: StreamMetrics | None = None,
        instance: str = "",
        clock: Clock | None = None,
        watch: KafkaWatch | None = None,
        make_member: Callable[..., FaustMember] = FaustMember,
        exit: Callable[[int], Any] = os._exit,  # noqa: A002
    ) -> None:
        self._stage = stage
        self._counted = CountingLog(log)
        self._log = cast(Log, self._counted)
        self._clock = clock or SystemClock()
        self._watch = watch or KafkaWatch()
        self._exit = exit
        self._metrics = metrics or StreamMetrics(CollectorRegistry(), stage.name)
        self._heartbeats = HeartbeatWriter(stage.name, self._send_acknowledged, self._figures, self._clock)
        self._loops: dict[TopicPartition, PartitionLoop] = {}
        self._fed_before = 0
        self._assignment = 0
        self._joined = False
        self._stopping = False
        # The coordinator keeps the client id of a lasting member's first process. With a process id in it, the watch
        # of the successor would find no partitions.
        self.client_id = f"{stage.name}-{instance or instance_name()}"
        self._member = make_member(
            self,
            settings,
            self._metrics,
            group=stage.name,
            topics=stage.topics,
            client_id=self.client_id,
            instance=instance,
        )
        self._shared = Shared(
            stage=stage,
            member=self._member,
            log=self._log,
            clock=self._clock,
            pool=ThreadPoolExecutor(cpu_count(), thread_name_prefix=stage.name),
            metrics=self._metrics,
            opening=asyncio.Semaphore(OPEN_AT_ONCE),
            failed=self._partition_failed,
            watch=self._watch,
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Run the stage until ``stop`` is set, then finish the records in process, commit and leave the group."""
        watchdog = Watchdog(self.signs, self._clock, self.failed)
        watchdog.start()
        beating = asyncio.create_task(self._heartbeats.run(lambda: "running" if self._joined else None))
        holding = asyncio.create_task(self._hold_back())
        member = asyncio.create_task(self._run_member())
        try:
            await stop.wait()
            await self._stop(member, beating)
        finally:
            beating.cancel()
            holding.cancel()
            watchdog.stop()
            self._shared.pool.shutdown(wait=False)

    async def _run_member(self) -> None:
        try:
            await self._member.run()
        except Exception as error:
            self.failed(error)
        if not self._stopping:
            self.failed(self._member.crash_reason or RunnerError("the group member stopped without a request"))

    async def _stop(self, member: asyncio.Task[None], beating: asyncio.Task[None]) -> None:
        self._stopping = True
        _log.info("stage_stopping", stage=self._stage.name)
        try:
            async with asyncio.timeout(STOP_S if self._joined else STOP_UNJOINED_S):
                await self._watch.finish(self._finish(member, beating))
        except (StoppedInOutage, TimeoutError):
            if self._joined and not self._watch.out:
                self.failed(Stuck(f"the stop takes more than {STOP_S:.0f} s"))
            # A member that waits for an absent broker cannot be stopped cleanly. If records were fed, the next owner
            # reads the unfinished ones again. An error may have requested the stop, so the status is not 0.
            self._exit(EXIT_AGAIN if self._watch.out else 0)
        _log.info("stage_stopped", stage=self._stage.name)

    async def _finish(self, member: asyncio.Task[None], beating: asyncio.Task[None]) -> None:
        if self._joined:
            await asyncio.gather(*(loop.drain() for loop in self._loops.values()))
            await self._member.commit()
            beating.cancel()
            await self._heartbeats.write("stopped")
        beating.cancel()
        await self._member.stop()
        await asyncio.wait({member, beating})

    def unready_reason(self) -> str:
        """Return why this member is not ready; empty once it has joined the consumer group."""
        return "" if self._joined else f"the consumer group {self._stage.name} has not been joined"

    def deliver(self, records: Sequence[LogRecord], first: FetchNumber) -> None:
        """Put records that were fetched together into the queue of their partition. Never block.

        ``first`` is the fetch number of the first of ``records``. Fetch numbers count the fetched records of a
        partition from 0 in each assignment.
        """
        tp = TopicPartition(records[0].topic, records[0].partition)
        loop = self._loops.get(tp)
        if loop is not None:
            loop.offer(records, first)
        elif not self._stopping and not self._member.rebalancing:
            self.failed(RunnerError(f"records of {tp.topic}[{tp.partition}] arrived, which is not assigned"))

    def safe_position(self, tp: TopicPartition) -> int | None:
        """Return the offset at which a restart must begin to read a partition; None while that offset is unknown."""
        loop = self._loops.get(tp)
        return loop.position if loop else None

    async def assigned(self, tps: Sequence[TopicPartition]) -> None:
        """Start a loop for each partition of a new assignment."""
        if self._stopping:
            return  # the draining loops still determine the positions to commit
        left_over = list(self._loops.values())
        self._assignment += 1
        self._loops = {tp: PartitionLoop(self._shared, tp, self._assignment) for tp in tps}
        self._joined = True
        _log.info("partitions_assigned", partitions=[f"{tp.topic}[{tp.partition}]" for tp in tps])
        await asyncio.gather(*(loop.drop() for loop in left_over))

    async def revoked(self) -> None:
        """Drop the loops of all partitions, and commit the finished records, so that the next owner processes fewer
        records again."""
        if not self._loops or self._stopping:
            return
        await asyncio.gather(*(loop.drop() for loop in self._loops.values()))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await self._member.commit()
        self._fed_before += sum(loop.fed for loop in self._loops.values())
        self._loops.clear()

    def failed(self, error: BaseException) -> None:
        """Log an error and end the process."""
        self._end(error, stage=self._stage.name)

    def signs(self) -> Signs:
        """Return the runner's progress and the amount of waiting work, for the watchdog. Any thread may call this
        method."""
        loops = list(self._loops.values())
        fed = self._fed_before + sum(loop.fed for loop in loops)
        finished = sum(loop.position or 0 for loop in loops)
        waiting = self._waiting([loop for loop in loops if not loop.held]) + sum(loop.busy for loop in loops)
        progress = fed + finished + self._counted.records
        return Signs(progress, waiting, self._member.rebalancing, self._joined, self._watch.failures)

    def _waiting(self, loops: list[PartitionLoop]) -> int:
        """Return how many records of the given partitions have not been passed to their processors."""
        return sum(self._member.undelivered(loop.tp, loop.due) + loop.queued for loop in loops)

    async def _hold_back(self) -> None:
        """Note the partitions whose output is not read fast enough, and suspend the partitions that are far
        behind."""
        if not isinstance(self._stage, BackPressured):
            return
        downstream = self._stage.downstream
        pressure, held = BackPressure(downstream.max_lag), frozenset[int]()
        while True:
            behind = any(loop.behind for loop in self._loops.values())
            await asyncio.sleep(CHECK_BEHIND_S if behind else CHECK_LAG_S)
            try:
                lags = await downstream_lags(self._log, downstream, [tp.partition for tp in self._loops])
            except LogUnavailable as error:
                _log.debug("downstream_lag_unknown", error=str(error))
                continue
            before, held = held, pressure.held(lags)
            for tp, loop in self._loops.items():
                loop.hold(tp.partition in held)
                loop.behind = lags.get(tp.partition, 0) > downstream.usual_lag
            if held != before:
                event = "partitions_held_back" if held else "partitions_released"
                _log.warning(event, partitions=sorted(held), group=downstream.group)

    async def _send_acknowledged(self, record: Outgoing) -> None:
        await (await self._member.send(record))

    def _figures(self) -> dict[str, float]:
        """Return the figures that a heartbeat reports, by name, and update the gauge of waiting records."""
        loops = list(self._loops.values())
        in_flight = sum(loop.in_flight for loop in loops)
        lag = self._waiting(loops) + in_flight
        self._metrics.waiting.set(lag)
        return {
            "records": float(self._fed_before + sum(loop.fed for loop in loops)),
            "lag": float(lag),
            "in_flight": float(in_flight),
            "held_back": float(sum(loop.held for loop in loops)),
            "partitions": float(len(loops)),
        }

    def _partition_failed(self, error: BaseException, tp: TopicPartition, offset: int) -> None:
        self._end(error, topic=tp.topic, partition=tp.partition, last_fed=offset)

    def _end(self, error: BaseException, **fields: Any) -> None:
        try:
            _log.error("stage_failed", exc_info=error, **fields)
        finally:
            self._exit(EXIT_FAILED)  # even if logging failed, for example on a closed pipe
