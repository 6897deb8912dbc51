"""The engine node: consume batches, classify, write results and offsets in transactions."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

from aiokafka import ConsumerRebalanceListener
from aiokafka import TopicPartition as KafkaPartition

from engines.metrics import NodeMetrics
from engines.node.intake import BatchIntake
from engines.node.partition import OwnedPartition
from engines.node.scheduler import MergedBatch, Scheduler
from engines.node.serving import ServedModel
from engines.node.takeover import take_over
from ingest.exceptions import Fenced, LogUnavailable
from ingest.kafka.kafkalog import KafkaLog
from ingest.kafka.log import LogRecord, TopicPartition
from ingest.kafka.settings import SESSION_TIMEOUT_MS, KafkaSettings
from ingest.runtime import logs
from ingest.runtime.clock import Clock, Deadline, SystemClock
from ingest.runtime.heartbeat import HeartbeatWriter, instance_name

_log = logs.get("engines.node.node")

MAX_PATIENCE_S = 0.25
"""A transaction costs the broker and the node about 2 ms of a core, which is what a small model takes for a frame:
under load several batches of a partition share one."""
ROW_MEMORY = 0.9
"""Weight of the past in what a row takes: about the last ten calls."""
STOP_S = 15.0
"""For what is in flight at a clean stop, well inside the 30 s after which an orchestrator kills."""
CLOSE_S = 10.0
"""For leaving the group and closing writers; a broker that is gone does not hold the process."""


class Node(ConsumerRebalanceListener):  # type: ignore[misc]
    """One member of the group ``engines``. Everything runs on one event loop, the engines in threads of their own.

    Any error that leaves ``run`` means that the process must end: Fenced and LogUnavailable leave a partition's
    writer in a state that only a new process may clear.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        served: Mapping[str, ServedModel],
        *,
        instances: int,
        metrics: NodeMetrics,
        clock: Clock | None = None,
        session_timeout_ms: int = SESSION_TIMEOUT_MS,
    ) -> None:
        name = instance_name()
        self._served = served
        self._pipelines = frozenset(served)
        self._instances = instances
        self._metrics = metrics
        self._clock = clock or SystemClock()
        self._scheduler = Scheduler(lambda pipeline: served[pipeline].max_rows)
        self._owned: dict[TopicPartition, OwnedPartition] = {}
        self._classifying: set[asyncio.Task[None]] = set()
        self._writing: dict[TopicPartition, asyncio.Task[None]] = {}
        self._opening: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._alarm: asyncio.TimerHandle | None = None
        self._failure: BaseException | None = None
        self._row_s = 0.0
        self._log = KafkaLog(settings, f"engine-{name}")
        self._intake = BatchIntake(settings, f"engine-{name}", instances, session_timeout_ms)
        self._heartbeats = HeartbeatWriter("engine", self._log.produce, self._figures, self._clock)
        self._pool = ThreadPoolExecutor(instances, thread_name_prefix="engine")

    async def run(self, stop: asyncio.Event) -> None:
        """Work until ``stop`` is set, then finish what is in flight. Raise Fenced or LogUnavailable."""
        reading = asyncio.create_task(self._read())
        stopping = asyncio.create_task(stop.wait())
        beating = asyncio.create_task(self._heartbeats.run(lambda: "running" if self._owned else "starting"))
        reading.add_done_callback(self._noted)
        try:
            await self._work(stopping)
            reading.cancel()
            await self._drain()
            await self._heartbeats.write("stopped")
        finally:
            for task in (reading, stopping, beating):
                task.cancel()
            await asyncio.gather(reading, stopping, beating, return_exceptions=True)
            await self._close()

    async def on_partitions_assigned(self, assigned: Iterable[KafkaPartition]) -> None:
        """Begin to take partitions over. Nothing of them is read before that is done.

        It is done beside the consumer, not in here: aiokafka sends no heartbeats while it waits for this method.
        """
        tps = [self._intake.tp(kafka_tp) for kafka_tp in assigned]
        self._intake.hold(tps)
        if tps:
            self._opening = asyncio.create_task(self._take_over(tps))
            self._opening.add_done_callback(self._noted)

    async def on_partitions_revoked(self, revoked: Iterable[KafkaPartition]) -> None:
        """Let partitions go: finish the open transaction, forget the rest, which the next owner reads again."""
        if self._opening:
            self._opening.cancel()
            await asyncio.wait({self._opening})
            self._opening = None
        tps = [self._intake.tp(kafka_tp) for kafka_tp in revoked]
        outcomes = await asyncio.gather(*map(self._let_go, tps), return_exceptions=True)
        for error in outcomes:
            if isinstance(error, Exception):  # aiokafka would log it, and go on
                self._fail(error)

    async def _take_over(self, tps: list[TopicPartition]) -> None:
        for owned in await take_over(self._log, tps):
            self._owned[owned.tp] = owned
            self._intake.begin(owned.tp, owned.position)
        _log.info("assigned", partitions=[f"{s.topic}[{s.partition}]" for s in tps])

    async def _let_go(self, tp: TopicPartition) -> None:
        owned = self._owned.pop(tp, None)
        self._scheduler.drop(tp)
        if owned is None:
            return
        writing = self._writing.get(tp)
        if writing:
            await asyncio.wait({writing})
        await owned.close()

    async def _read(self) -> None:
        await self._intake.start(self)
        while True:
            self._intake.throttle(self._owned.values(), self._scheduler)
            records = await self._intake.next()
            for record in records:
                self._take(record)
            if records:
                self._wake.set()

    def _take(self, record: LogRecord) -> None:
        owned = self._owned.get(TopicPartition(record.topic, record.partition))
        if owned is None:
            return  # let go between the fetch and here: its next owner reads it
        job = owned.take(record, self._pipelines)
        self._metrics.batches.inc()
        if not job.settled:
            self._scheduler.add(owned.tp, job)

    async def _work(self, stopping: asyncio.Task[bool]) -> None:
        while not stopping.done():
            self._wake.clear()
            if self._failure:
                raise self._failure
            self._start_what_can()
            waiting = asyncio.create_task(self._wake.wait())
            await asyncio.wait({waiting, stopping}, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()

    def _start_what_can(self) -> None:
        while len(self._classifying) < self._instances and (merged := self._scheduler.next()):
            task = asyncio.create_task(self._classify(merged))
            self._classifying.add(task)
            task.add_done_callback(self._classified)
        now_s, pauses_s = self._clock.monotonic(), []
        for tp, owned in self._owned.items():
            due_s = None if tp in self._writing else owned.due(now_s, self._patience_s)
            if due_s is not None and due_s <= now_s:
                self._writing[tp] = writing = asyncio.create_task(self._write(owned))
                writing.add_done_callback(functools.partial(self._written, tp))
            elif due_s is not None:
                pauses_s.append(due_s - now_s)
        self._wake_after(min(pauses_s, default=None))
        self._metrics.waiting.set(self._scheduler.waiting)

    def _wake_after(self, pause_s: float | None) -> None:
        """Wake once, when the first tp is due: an alarm per tp and look would wake for all those before it."""
        if self._alarm:
            self._alarm.cancel()
        self._alarm = None if pause_s is None else asyncio.get_running_loop().call_later(pause_s, self._wake.set)

    @property
    def _patience_s(self) -> float:
        """How long settled results may wait to share a transaction: half of what the last row in the queue will wait.

        Without a queue it is nothing, and under load it is nothing that anyone would notice.
        """
        queue_s = self._scheduler.waiting * self._row_s / self._instances
        return min(MAX_PATIENCE_S, queue_s / 2)

    async def _classify(self, merged: MergedBatch) -> None:
        started_s = self._clock.monotonic()
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._pool, self._served[merged.pipeline].classify, merged)
        took_s = self._clock.monotonic() - started_s
        self._row_s = ROW_MEMORY * self._row_s + (1.0 - ROW_MEMORY) * took_s / merged.rows
        self._metrics.infer.observe(took_s)
        self._metrics.rows.labels(merged.pipeline).inc(merged.rows)

    async def _write(self, owned: OwnedPartition) -> None:
        started_s = self._clock.monotonic()
        self._metrics.written.inc(await owned.write(self._clock.now_ns))
        self._metrics.transaction.observe(self._clock.monotonic() - started_s)

    def _classified(self, task: asyncio.Task[None]) -> None:
        self._classifying.discard(task)
        self._noted(task)

    def _written(self, tp: TopicPartition, task: asyncio.Task[None]) -> None:
        self._writing.pop(tp, None)
        error = None if task.cancelled() else task.exception()
        if tp not in self._owned and isinstance(error, Fenced | LogUnavailable):
            # Let go in the meantime: the next owner has fenced us, as it should, and reads this again.
            _log.info("not written", tp=f"{tp.topic}[{tp.partition}]", error=str(error))
            self._wake.set()
        else:
            self._noted(task)

    def _noted(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error:
            self._fail(error)
        self._wake.set()

    def _fail(self, error: BaseException) -> None:
        self._failure = self._failure or error
        self._wake.set()

    async def _drain(self) -> None:
        deadline = Deadline.after(STOP_S, self._clock)
        while any(owned.in_flight for owned in self._owned.values()) and not deadline.passed:
            self._start_what_can()
            running = {*self._classifying, *self._writing.values()}
            if not running:
                break
            timeout_s = min(deadline.left, MAX_PATIENCE_S)
            await asyncio.wait(running, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if self._failure:
                raise self._failure

    def _figures(self) -> dict[str, float]:
        return {
            "waiting_rows": float(self._scheduler.waiting),
            "in_flight_batches": float(sum(owned.in_flight for owned in self._owned.values())),
            "partitions": float(len(self._owned)),
        }

    async def _close(self) -> None:
        self._wake_after(None)
        tasks = [*self._classifying, *self._writing.values(), *([self._opening] if self._opening else [])]
        for task in tasks:
            task.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await asyncio.gather(*tasks, return_exceptions=True)
                await asyncio.gather(*(owned.close() for owned in self._owned.values()), return_exceptions=True)
                await self._intake.stop()
                await self._log.close()
        self._pool.shutdown(wait=False, cancel_futures=True)
