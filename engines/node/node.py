"""The engine node. The node reads and classifies batches, and writes results in transactions."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

from aiokafka import ConsumerRebalanceListener
from aiokafka import TopicPartition as KafkaPartition

from engines.exceptions import PipelineUnknown
from engines.metrics import NodeMetrics
from engines.node.fused import FramePreparation, OwnedFrames
from engines.node.intake import BatchIntake
from engines.node.jobs import LIGHTER, Job
from engines.node.pipelines import LiveModels
from engines.node.scheduler import MergedBatch, Scheduler
from engines.node.shadow import ShadowRunner
from engines.node.takeover import Gap, OwnedPartition, batches_of, take_over
from ingest.contract.codec import has_pictures
from ingest.contract.groups import ENGINES
from ingest.contract.headers import pipeline_of
from ingest.contract.identity import FrameId
from ingest.contract.topics import BATCHES, BATCHES_LATE
from ingest.exceptions import Fenced, LogUnavailable
from ingest.kafka.log import Log, LogRecord, TopicPartition
from ingest.kafka.position import expired_between
from ingest.runtime import logs
from ingest.runtime.clock import Clock, Deadline, SystemClock
from ingest.runtime.heartbeat import HeartbeatWriter

_log = logs.get("engines.node.node")

MAX_PATIENCE_S = 0.25
"""Maximum time in s that finished results wait, so that several batches share a transaction.

A transaction costs the broker and the node about 2 ms of processor time, which is what a small model needs for one
frame. Under load, several batches of a partition share a transaction to save processor time.
"""
PATIENCE_OF_GOAL = 0.25
"""Maximum wait of finished results, as a fraction of the shortest latency goal of all pipelines."""
MEMORY = 0.9
"""Weight of earlier measurements in an exponential moving average, which covers about the last ten measurements."""
STOP_S = 15.0
"""Maximum time in s to finish jobs in flight at a clean stop. The limit is less than the 30 s after which
orchestrators kill a process."""
CLOSE_S = 10.0
"""Maximum time in s to leave the consumer group and close the transactional writers. The limit lets the process end
even if the broker is unreachable."""


class Node(ConsumerRebalanceListener):  # type: ignore[misc]
    """One member of the Kafka consumer group ``engines``.

    A node runs on one event loop, and makes each engine call in a thread. ``models`` holds the model of each
    pipeline. Up to ``concurrency`` batches are in progress at once. With more batches than the engines compute at
    once, the next batch is prepared during a computation. The node stops ``intake`` and closes ``log`` at the end of
    ``run``. ``take_over`` opens newly assigned partitions. ``refresh`` reads the configuration again before a batch
    of an unknown pipeline becomes a dead letter, because the pipeline may be new. ``shadow`` runs candidate models on
    classified frames while the node is idle.

    The process must end after any error from ``run``: Fenced and LogUnavailable leave a partition's writer in a state
    that only a new process can clear.
    """

    def __init__(
        self,
        log: Log,
        intake: BatchIntake,
        models: LiveModels,
        *,
        concurrency: int,
        metrics: NodeMetrics,
        clock: Clock | None = None,
        refresh: Callable[[], Awaitable[None]] | None = None,
        shadow: ShadowRunner | None = None,
        take_over: Callable[[Log, Sequence[TopicPartition]], Awaitable[list[OwnedPartition]]] = take_over,
    ) -> None:
        self._log = log
        self._intake = intake
        self._models = models
        self._concurrency = concurrency
        self._metrics = metrics
        self._clock = clock or SystemClock()
        self._open_partitions = take_over
        self._refresh = refresh
        self._shadow = shadow
        self._scheduler = Scheduler(models)
        self._owned: dict[TopicPartition, OwnedPartition] = {}
        self._takeover: asyncio.Task[None] | None = None
        self._joined = self._stopping = False
        self._classifying: set[asyncio.Task[None]] = set()
        self._writing: dict[TopicPartition, asyncio.Task[None]] = {}  # by ``batches_of``, because they share a writer
        self._preparation = FramePreparation(log, intake, self._owned)
        self._disordered: set[str] = set()
        self._wake = asyncio.Event()
        models.on_update = self._wake.set
        if shadow:
            shadow.busy = lambda: bool(self._classifying) or self._scheduler.waiting > 0
        self._failure: BaseException | None = None
        self._seconds_per_row = 0.0
        self._transaction_s = 0.0
        self._heartbeats = HeartbeatWriter("engine", log.produce, self.figures, self._clock)
        self._pool = ThreadPoolExecutor(concurrency, thread_name_prefix="engine")

    async def run(self, stop: asyncio.Event) -> None:
        """Classify until ``stop`` is set, then finish the jobs in flight. Raise Fenced or LogUnavailable."""
        reading = asyncio.create_task(self._read())
        stopping = asyncio.create_task(stop.wait())
        stopping.add_done_callback(lambda _: self._wake.set())
        beating = asyncio.create_task(self._heartbeats.run(lambda: "running" if self._owned else "starting"))
        reading.add_done_callback(self._on_done)
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

    def figures(self) -> dict[str, float]:
        """Return the figures of a heartbeat: numbers of waiting images, batches in flight, and owned partitions."""
        return {
            "waiting_rows": float(self._scheduler.waiting),
            "in_flight_batches": float(sum(owned.in_flight for owned in self._owned.values())),
            "partitions": float(len(self._owned)),
        }

    def unready_reason(self) -> str:
        """Return why the node is not ready to classify.

        The reason is empty once models are loaded, the consumer group is joined, and all assigned partitions are
        taken over.
        """
        if not self._joined:
            return f"the consumer group {ENGINES} has not been joined"
        if self._takeover and not self._takeover.done():
            return "partitions are being taken over"
        return self._models.unready_reason()

    async def on_partitions_assigned(self, assigned: Iterable[KafkaPartition]) -> None:
        """Start the take-over of partitions, which yield no records until the take-over is done.

        The take-over runs in a task of its own, because aiokafka sends no heartbeats while it waits for this method.
        """
        tps = [self._intake.tp(kafka_tp) for kafka_tp in assigned]
        self._intake.hold(tps)
        self._joined = True
        if tps:
            self._takeover = asyncio.create_task(self._take_over(tps))
            self._takeover.add_done_callback(self._on_done)

    async def on_partitions_revoked(self, revoked: Iterable[KafkaPartition]) -> None:
        """Release partitions: finish their open transactions, and drop jobs that no transaction writes yet.

        The next owner reads the batches of dropped jobs again.
        """
        if self._takeover:
            self._takeover.cancel()
            await asyncio.wait({self._takeover})
            self._takeover = None
        tps = [self._intake.tp(kafka_tp) for kafka_tp in revoked]
        outcomes = await asyncio.gather(*map(self._release, tps), return_exceptions=True)
        for error in outcomes:
            if isinstance(error, Exception):  # aiokafka would log an error raised in this callback and continue
                self._fail(error)

    async def _take_over(self, tps: list[TopicPartition]) -> None:
        for owned in await self._open_partitions(self._log, tps):
            self._owned[owned.tp] = owned
            self._metrics.expired_unread.inc(owned.start.expired_unread)
            self._metrics.topic_recreated.inc(owned.start.recreated)
            if isinstance(owned, OwnedFrames):
                self._preparation.add(owned.tp)
            else:
                self._intake.begin(owned.tp, owned.start.offset)
        _log.info("partitions_assigned", partitions=[f"{tp.topic}[{tp.partition}]" for tp in tps])

    async def _release(self, tp: TopicPartition) -> None:
        owned = self._owned.pop(tp, None)
        self._preparation.drop(tp)
        self._scheduler.drop(tp)
        if owned is None:
            return
        if writing := self._writing.get(batches_of(tp)):
            await asyncio.wait({writing})
        await owned.close()

    async def _read(self) -> None:
        await self._intake.start(self)
        while True:
            await self._preparation.begin_drained()
            self._intake.throttle(self._owned.values(), self._scheduler)
            records = await self._intake.next()
            now_s = self._clock.monotonic()
            frames = self._preparation.due(now_s)
            fetched_for = dict(self._owned)
            gaps: list[Gap] = []
            # One check is enough for all records of a fetch: they were written before any later configuration.
            pipelines = self._models.names
            if self._refresh and any(_lacks_its_model(record, pipelines) for record in records):
                await self._refresh()
                pipelines = self._models.names
            for record in records:
                tp = TopicPartition(record.topic, record.partition)
                if self._owned.get(tp) is not fetched_for.get(tp):
                    continue  # the partition was assigned anew during the check: its records are fetched again
                owned = self._owned.get(tp)
                if isinstance(owned, OwnedFrames):
                    frames.setdefault(owned, []).append(record)
                    gap = await self._preparation.deliver(owned, record)
                else:
                    gap = self._take(record, pipelines)
                if gap:
                    gaps.append(gap)
            for owned, job in await self._preparation.jobs(frames, self._models, now_s):
                self._admit(owned, job)
            if records or frames:
                self._wake.set()
            for gap in gaps:  # after all records are taken, because a rebalance may happen during this await
                self._metrics.expired_unread.inc(await expired_between(self._log, ENGINES, *gap))

    def _take(self, record: LogRecord, pipelines: frozenset[str]) -> Gap | None:
        """Turn a record into a job of its partition. If the log has no records between the previous offset and this
        record, return the missing offsets.

        An offset lower than the last offset means that the topic was created again. The node reads a topic that was
        created again from its beginning.
        """
        owned = self._owned.get(TopicPartition(record.topic, record.partition))
        if owned is None:
            return None  # the partition was released after the fetch: its next owner reads the record
        expected = owned.next
        if record.offset < expected:
            place = {"topic": record.topic, "partition": record.partition}
            _log.warning("topic_created_again", **place, expected_offset=expected, found_offset=record.offset)
            self._metrics.topic_recreated.inc()
        self._admit(owned, owned.take(record, pipelines))
        return (owned.tp, expected, record.offset) if record.offset > expected else None

    def _admit(self, owned: OwnedPartition, job: Job) -> None:
        """Count a new job, and queue the job unless all its frames are already classified or have finally failed."""
        self._metrics.batches.inc()
        for frame in job.out_of_order:
            self._note_out_of_order(frame, job.pipeline)
        if not job.settled:
            self._scheduler.add(owned.tp, job, self._clock.now_ns())

    def _note_out_of_order(self, frame: FrameId, pipeline: str) -> None:
        """Count a frame that arrived out of order. Of the frames of a camera that arrive out of order, log only the
        first."""
        self._metrics.out_of_order.labels(frame.camera).inc()
        if frame.camera not in self._disordered:
            self._disordered.add(frame.camera)
            fix = "write the frames of one camera and epoch in the order of their numbers"
            _log.warning("frame_out_of_order", frame=str(frame), pipeline=pipeline, fix=fix)

    async def _work(self, stopping: asyncio.Task[bool]) -> None:
        while not stopping.done():
            self._wake.clear()
            if self._failure:
                raise self._failure
            pause_s = self._start_tasks()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._wake.wait()

    def _start_tasks(self) -> float | None:
        """Start engine calls up to the limit ``concurrency``, and the transactions that are due.

        If no image waits for an engine, first close the open batches of frames that this node prepares.

        Return the time in seconds until the next transaction is due; None if no job waits for a transaction.
        """
        if not self._scheduler.waiting:
            for frames, job in self._preparation.flush(self._models):
                self._admit(frames, job)
        self._scheduler.write_s = self._patience_s + self._transaction_s
        while len(self._classifying) < self._concurrency and (merged := self._scheduler.next(self._clock.now_ns())):
            classifying = asyncio.create_task(self._classify(merged))
            self._classifying.add(classifying)
            classifying.add_done_callback(self._classifying.discard)
            classifying.add_done_callback(self._on_done)
        now_s, pauses_s = self._clock.monotonic(), []
        for tp, owned in self._owned.items():
            lane = batches_of(tp)
            due_s = None if lane in self._writing else owned.due(now_s, self._patience_s, stopping=self._stopping)
            if due_s is not None and due_s <= now_s:
                self._writing[lane] = writing = asyncio.create_task(self._write(owned))
                writing.add_done_callback(functools.partial(self._on_written, tp))
            elif due_s is not None:
                pauses_s.append(due_s - now_s)
        self._metrics.waiting.set(self._scheduler.waiting)
        self._note_overload()
        return min(pauses_s, default=None)

    def _note_overload(self) -> None:
        for control in self._scheduler.policies.changed_controls():
            _log.info(
                "overload_policy_changed", pipeline=control.pipeline, policy=control.policy, degree=control.degree
            )
            self._metrics.overload.labels(control.pipeline).set(control.degree)
        for (pipeline, reason), count in self._scheduler.policies.shed_counts().items():
            self._metrics.shed.labels(pipeline, reason).inc(count)

    @property
    def _patience_s(self) -> float:
        queue_s = self._scheduler.waiting * self._seconds_per_row / self._concurrency
        return patience(queue_s, self._models.shortest_goal_s)

    async def _classify(self, merged: MergedBatch) -> None:
        started_s, started_ns = self._clock.monotonic(), self._clock.now_ns()
        loop, rows = asyncio.get_running_loop(), merged.rows
        try:
            lighter = merged.lighter and self._models.has_lighter(merged.pipeline)
            async with self._models.use(merged.pipeline, lighter=lighter) as model:
                for job in merged.jobs:
                    job.reason = LIGHTER if lighter else ""
                takes_one_call = rows <= model.max_rows  # a warm-up may change it during the call
                await loop.run_in_executor(self._pool, model.classify, merged)
                if takes_one_call:
                    model.batch_time.observe(rows, merged.took.device_s)
                if self._shadow and not lighter:
                    self._shadow.offer(merged, model.model.manifest.id)
        except PipelineUnknown as error:
            for task in merged.tasks:
                task.error = error
        else:
            took_s = self._clock.monotonic() - started_s
            self._seconds_per_row = MEMORY * self._seconds_per_row + (1.0 - MEMORY) * took_s / rows
            self._metrics.infer.observe(took_s)
            self._metrics.rows.labels(merged.pipeline).inc(rows)
            self._observe_stages(merged, started_ns)
        self._scheduler.finished(merged)

    def _observe_stages(self, merged: MergedBatch, started_ns: int) -> None:
        pipeline, model = merged.pipeline, merged.jobs[0].model
        for job in merged.jobs:
            self._metrics.observe("queue", pipeline, model, (started_ns - job.queued_ns) / 1e9)
        for stage, seconds in asdict(merged.took).items():
            if stage == "cascade" and not seconds:
                continue  # the pipeline has no second model
            self._metrics.observe(stage, pipeline, model, seconds)

    async def _write(self, owned: OwnedPartition) -> None:
        started_s = self._clock.monotonic()
        self._metrics.written.inc(await owned.write(self._clock.now_ns, started_s))
        took_s = self._clock.monotonic() - started_s
        self._transaction_s = MEMORY * self._transaction_s + (1.0 - MEMORY) * took_s
        self._metrics.transaction.observe(took_s)

    def _on_written(self, tp: TopicPartition, task: asyncio.Task[None]) -> None:
        self._writing.pop(batches_of(tp), None)
        if tp in self._owned:  # the last in turn, so that the topics of a lane, which share a writer, take turns
            self._owned[tp] = self._owned.pop(tp)
        error = None if task.cancelled() else task.exception()
        if tp not in self._owned and isinstance(error, Fenced | LogUnavailable):
            # The partition was revoked meanwhile: the next owner has fenced this writer, and reads the batches again.
            _log.info("transaction_abandoned", partition=f"{tp.topic}[{tp.partition}]", error=str(error))
            self._wake.set()
        else:
            self._on_done(task)

    def _on_done(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error:
            self._fail(error)
        self._wake.set()

    def _fail(self, error: BaseException) -> None:
        self._failure = self._failure or error
        self._wake.set()

    async def _drain(self) -> None:
        self._stopping = True
        deadline = Deadline.after(STOP_S, self._clock)
        while any(owned.in_flight or owned.uncommitted for owned in self._owned.values()) and not deadline.passed:
            pause_s = self._start_tasks()
            running = {*self._classifying, *self._writing.values()}
            timeout_s = min(deadline.left, MAX_PATIENCE_S if pause_s is None else pause_s)
            if running:
                await asyncio.wait(running, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            elif pause_s is None:
                break
            else:
                await asyncio.sleep(timeout_s)  # until finished results have waited for later ones
            if self._failure:
                raise self._failure

    async def _close(self) -> None:
        tasks = [*self._classifying, *self._writing.values(), *([self._takeover] if self._takeover else [])]
        for task in tasks:
            task.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await asyncio.gather(*tasks, return_exceptions=True)
                await asyncio.gather(*(owned.close() for owned in self._owned.values()), return_exceptions=True)
                await self._intake.stop()
                await self._log.close()
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._preparation.close()


def patience(queue_s: float, goal_s: float) -> float:
    """Return the time in s for which finished results may wait to share a transaction.

    The time is the least of three numbers: half of ``queue_s``, the expected wait of the last queued image; the
    fraction ``PATIENCE_OF_GOAL`` of the shortest latency goal ``goal_s``; and ``MAX_PATIENCE_S``.
    """
    return min(MAX_PATIENCE_S, queue_s / 2, goal_s * PATIENCE_OF_GOAL)


def _lacks_its_model(record: LogRecord, pipelines: frozenset[str]) -> bool:
    """Return whether a record is a batch to classify, and no model of its pipeline is served or loading."""
    return (
        record.topic in (BATCHES, BATCHES_LATE)
        and pipeline_of(record.headers) not in pipelines
        and has_pictures(record.value)
    )
