"""Runs a stage on Kafka, under Faust, until it is told to stop or something goes wrong.

One process is one member of the stage's consumer group. Faust finds out which partitions are ours and fetches their
records; each partition has a loop of its own (``partition.py``); what is committed is what these loops are done with.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from faust.types import TP
from prometheus_client import CollectorRegistry

from ingest.exceptions import LogUnavailable
from ingest.kafka.log import Log, Outgoing, TopicPartition
from ingest.kafka.settings import KafkaSettings
from ingest.runtime import logs
from ingest.runtime.clock import Clock, SystemClock
from ingest.runtime.heartbeat import HeartbeatWriter, instance_name
from ingest.runtime.service import EXIT_FAILED, Service
from stream.exceptions import RunnerError, Stuck
from stream.metrics import StreamMetrics
from stream.runner.allocator import keep_freed_memory
from stream.runner.faust import app as faustapp
from stream.runner.holdback import HOLD_S, HeldBack, HoldBack, behind
from stream.runner.opening import OPEN_AT_ONCE, CountingLog
from stream.runner.partition import Context, PartitionLoop
from stream.runner.processor import Stage
from stream.runner.watchdog import Signs, Watchdog

_log = logs.get("stream.runner")

STOP_S = 20.0
"""For a clean stop: finish what is being processed, have it acknowledged, commit, leave the group. Less than the
30 s after which orchestrators kill."""
STOP_UNJOINED_S = 3.0
"""The same before the group has let us in: there is only the group to leave."""

StageFactory = Callable[[Log], Awaitable[Stage]]
"""Makes a stage, which may read the ``config`` topic first."""


async def serve(service: Service, make: StageFactory, stop: asyncio.Event, instance: str = "") -> None:
    """Run a stage until ``stop`` is set.

    ``instance`` is this member's lasting name in its group (static membership, KIP-345): a process that is started
    again under it takes its partitions back at once, without waiting for the dead one's session to end. Two processes
    must not share it.

    Raise TopicMismatch when the broker's topics are not as the contract says, LogUnavailable without a broker. Any
    error inside the stage ends the process at once with ``EXIT_FAILED``.
    """
    keep_freed_memory()
    async with service.open_log() as log:
        stage = await make(log)
        metrics = StreamMetrics(service.registry, stage.name)
        await Runner(stage, service.settings, log, metrics=metrics, instance=instance).run(stop)


class Runner:
    """One member of a stage's consumer group. ``exit`` ends the process; it is a parameter for tests only."""

    def __init__(
        self,
        stage: Stage,
        settings: KafkaSettings,
        log: Log,
        *,
        metrics: StreamMetrics | None = None,
        instance: str = "",
        clock: Clock | None = None,
        exit: Callable[[int], Any] = os._exit,  # noqa: A002
    ) -> None:
        self._stage = stage
        self._settings = settings
        self._log = CountingLog(log)
        self._clock = clock or SystemClock()
        self._exit = exit
        self._metrics = metrics or StreamMetrics(CollectorRegistry(), stage.name)
        self._heartbeats = HeartbeatWriter(stage.name, self._send_acknowledged, self._figures, self._clock)
        self._loops: dict[TopicPartition, PartitionLoop] = {}
        self._fed_before = 0
        self._run = 0
        self._joined = False
        self._revoking = False
        self._stopping = False
        self._context = Context(
            stage=stage,
            log=self._log,
            clock=self._clock,
            pool=ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix=stage.name),
            metrics=self._metrics,
            opening=asyncio.Semaphore(OPEN_AT_ONCE),
            send=self._send,
            begin=lambda tp, position, run: self._app.consumer.begin(self._tp(tp), position, run),
            failed=self._partition_failed,
            pause=lambda tp: self._app.consumer.pause_fetching(self._tp(tp)),
            resume=lambda tp: self._app.consumer.resume_fetching(self._tp(tp)),
        )
        self._app = faustapp.build(
            settings,
            group=stage.name,
            client_id=f"{stage.name}-{instance_name()}",
            instance=instance,
            topics=stage.topics,
            deliver=self._deliver,
            failed=self._failed,
        )
        self._app.on_partitions_revoked.connect(self._revoked)
        self._app.on_partitions_assigned.connect(self._assigned)

    async def run(self, stop: asyncio.Event) -> None:
        """Work until ``stop`` is set, then finish what is being processed, commit and leave."""
        self._app.consumer.safe = self._safe
        watchdog = Watchdog(self._signs, self._clock, lambda reason: self._failed(Stuck(reason)))
        watchdog.start()
        beating = asyncio.create_task(self._heartbeats.run(lambda: "running" if self._joined else None))
        holding = asyncio.create_task(self._hold_back())
        starting = asyncio.create_task(self._guarded_start())
        try:
            await stop.wait()
            await self._stop(starting, beating)
        finally:
            beating.cancel()
            holding.cancel()
            watchdog.stop()
            self._context.pool.shutdown(wait=False)

    async def _guarded_start(self) -> None:
        try:
            await self._app.start()
            await self._app.wait_until_stopped()
        except Exception as error:
            self._failed(error)
        if not self._stopping:
            self._failed(self._app.crash_reason or RunnerError("Faust stopped by itself"))

    async def _stop(self, starting: asyncio.Task[None], beating: asyncio.Task[None]) -> None:
        self._stopping = True
        _log.info("stopping", stage=self._stage.name)
        try:
            async with asyncio.timeout(STOP_S if self._joined else STOP_UNJOINED_S) as limit:
                await self._finish(beating)
                await asyncio.wait({starting, beating})
            if limit.expired():  # Faust takes the cancellation for itself, and leaves its thread running
                raise TimeoutError
        except TimeoutError:
            if self._joined:
                self._failed(Stuck(f"not stopped within {STOP_S:.0f} s"))
            self._exit(0)  # nothing was begun, and a start that hangs on a broker that is gone cannot be stopped
        _log.info("stopped", stage=self._stage.name)

    async def _finish(self, beating: asyncio.Task[None]) -> None:
        if self._joined:
            await asyncio.gather(*(loop.drain() for loop in self._loops.values()))
            await self._commit()
            beating.cancel()
            await self._heartbeats.write("stopped")
        beating.cancel()
        await self._app.stop()

    async def _commit(self) -> None:
        """Commit what all loops are done with. A commit that is under way is waited for first; it may be older."""
        if not await self._app.consumer.commit():
            await self._app.consumer.commit()

    def _deliver(self, event: faustapp.Event) -> None:
        record = faustapp.to_record(self._settings, event)
        loop = self._loops.get(TopicPartition(record.topic, record.partition))
        if loop is not None:
            loop.offer(record, event.message.stamp)
        elif not self._stopping and not self._rebalancing:
            self._failed(RunnerError(f"a record of {record.topic}[{record.partition}], which is not assigned"))

    @property
    def _rebalancing(self) -> bool:
        """Whether partitions went and none came yet. Faust forgets it when a rebalance begins as another ends."""
        return self._revoking or bool(self._app.rebalancing)

    async def _assigned(self, _app: Any, assigned: set[TP], **_: Any) -> None:
        self._revoking = False
        if self._stopping:
            return  # the loops that are being drained still say what may be committed
        left_over = list(self._loops.values())
        tps = sorted(map(self._unprefixed, assigned))
        self._run += 1
        self._loops = {tp: PartitionLoop(self._context, tp, self._run, self._start_of) for tp in tps}
        self._joined = True
        _log.info("assigned", partitions=[f"{tp.topic}[{tp.partition}]" for tp in tps])
        await asyncio.gather(*(loop.drop() for loop in left_over))

    async def _revoked(self, _app: Any, _revoked: set[TP], **_: Any) -> None:
        self._revoking = True
        await self._drop_all()

    async def _drop_all(self) -> None:
        """Let go of every partition: all are revoked in each rebalance. Commit what is done, to repeat less."""
        if not self._loops or self._stopping:
            return
        await asyncio.gather(*(loop.drop() for loop in self._loops.values()))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await self._commit()
        self._fed_before += sum(loop.fed for loop in self._loops.values())
        self._loops.clear()

    async def _start_of(self, tp: TopicPartition) -> int:
        committed = await self._log.committed(self._stage.name, tp)
        first = (await self._log.beginnings(tp.topic))[tp.partition]
        return max(committed or 0, first)

    async def _send(self, record: Outgoing) -> Awaitable[Any]:
        self._metrics.written.inc()
        self._metrics.written_bytes.inc(len(record.value))
        sent: Awaitable[Any] = await self._app.producer.send(
            self._settings.topic(record.topic),
            record.key,
            record.value,
            record.partition,
            None,
            dict(record.headers),
        )
        return sent

    def _safe(self, tp: TP) -> int | None:
        loop = self._loops.get(self._unprefixed(tp))
        return loop.position if loop else None

    def _signs(self) -> Signs:
        loops = list(self._loops.values())
        fed = self._fed_before + sum(loop.fed for loop in loops)
        done = sum(loop.position or 0 for loop in loops)
        due = [loop for loop in loops if not loop.held]  # the others wait on purpose
        waiting = self._unfed(due) + sum(loop.busy for loop in loops)
        return Signs(fed + done + self._log.records, waiting, self._rebalancing, self._joined)

    def _unfed(self, loops: list[PartitionLoop]) -> int:
        consumer = self._app.consumer
        unfetched = sum(consumer.unfetched(self._tp(loop.tp)) for loop in loops)
        on_the_way = sum(consumer.on_the_way(self._tp(loop.tp), loop.due) for loop in loops)
        return int(unfetched + on_the_way + sum(loop.queued for loop in loops))

    async def _hold_back(self) -> None:
        """Hold the partitions whose reader is behind."""
        if not isinstance(self._stage, HeldBack):
            return
        reader = self._stage.reader
        decide, held = HoldBack(reader.most), frozenset[int]()
        while True:
            await asyncio.sleep(HOLD_S)
            try:
                waiting = await behind(self._log, reader, [tp.partition for tp in self._loops])
            except LogUnavailable as error:
                _log.debug("readers not looked at", error=str(error))
                continue
            before, held = held, decide.held(waiting)
            for tp, loop in self._loops.items():
                loop.hold(tp.partition in held)
            if held != before:
                _log.warning("held back" if held else "goes on", partitions=sorted(held), group=reader.group)

    async def _send_acknowledged(self, record: Outgoing) -> None:
        await (await self._send(record))

    def _figures(self) -> dict[str, float]:
        loops = list(self._loops.values())
        in_flight = sum(loop.in_flight for loop in loops)
        lag = self._unfed(loops) + in_flight
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

    def _failed(self, error: BaseException) -> None:
        self._end(error, stage=self._stage.name)

    def _end(self, error: BaseException, **place: Any) -> None:
        try:
            _log.error("failed", exc_info=error, **place)
        finally:
            self._exit(EXIT_FAILED)  # also when nobody reads the log any more, and to write it fails

    def _tp(self, tp: TopicPartition) -> TP:
        return TP(self._settings.topic(tp.topic), tp.partition)

    def _unprefixed(self, tp: TP) -> TopicPartition:
        return TopicPartition(tp.topic.removeprefix(self._settings.prefix), tp.partition)
