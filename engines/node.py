"""The engine node: consume batches, classify, write results and offsets in transactions."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import socket
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

from aiokafka import ConsumerRebalanceListener, TopicPartition

from engines.metrics import NodeMetrics
from engines.scheduler import Merged, Scheduler
from engines.serving import Served
from engines.slots import GROUP, OwnedSlot, open_slot
from ingest import kafka, logs
from ingest.clock import Clock, Deadline, SystemClock
from ingest.codec import encode
from ingest.exceptions import IngestError
from ingest.kafka import KafkaSettings
from ingest.kafkalog import KafkaLog, from_consumer
from ingest.log import LogRecord, Outgoing, Slot
from ingest.records import Heartbeat
from ingest.topics import BATCHES, BATCHES_LATE, STATUS

__all__ = ["Node"]

_log = logs.get("engines.node")

POLL_MS = 50
"""How long a poll waits for the first record. Work that becomes ready in the meantime does not wait for it."""
MAX_WAITING_ROWS_PER_INSTANCE = 64
"""Intake stops above this and goes on below half of it: two large batches per engine keep it busy."""
MAX_IN_FLIGHT_JOBS = 512
MAX_IN_FLIGHT_BYTES = 96 * 1024 * 1024
"""Intake stops above these too: jobs that are classified are kept, with their pixels, until they are written."""
MAX_PATIENCE_S = 0.25
"""A transaction costs the broker and the node about 2 ms of a core, which is what a small model takes for a frame:
under load several batches of a partition share one."""
ROW_MEMORY = 0.9
"""Weight of the past in what a row takes: about the last ten calls."""
BEAT_S = 2.0
STOP_S = 15.0
"""For what is in flight at a clean stop, well inside the 30 s after which an orchestrator kills."""


class Node(ConsumerRebalanceListener):  # type: ignore[misc]
    """One member of the group ``engines``. Everything runs on one event loop, the engines in threads of their own.

    Any error that leaves ``run`` means that the process must end: Fenced and LogUnavailable leave a partition's
    writer in a state that only a new process may clear.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        served: Mapping[str, Served],
        *,
        instances: int,
        metrics: NodeMetrics,
        clock: Clock | None = None,
        session_timeout_ms: int = kafka.SESSION_TIMEOUT_MS,
    ) -> None:
        self._settings = settings
        self._served = served
        self._pipelines = frozenset(served)
        self._instances = instances
        self._metrics = metrics
        self._clock = clock or SystemClock()
        self._scheduler = Scheduler(lambda pipeline: served[pipeline].max_rows)
        self._slots: dict[Slot, OwnedSlot] = {}
        self._classifying: set[asyncio.Task[None]] = set()
        self._writing: dict[Slot, asyncio.Task[None]] = {}
        self._paused: frozenset[TopicPartition] = frozenset()
        self._wake = asyncio.Event()
        self._failure: BaseException | None = None
        self._row_s = 0.0
        self._log = KafkaLog(settings, f"engine-{socket.gethostname()}-{os.getpid()}")
        self._consumer = kafka.consumer(
            settings,
            f"engine-{socket.gethostname()}-{os.getpid()}",
            group=GROUP,
            session_timeout_ms=session_timeout_ms,
            heartbeat_interval_ms=session_timeout_ms // 4,
        )
        self._pool = ThreadPoolExecutor(instances, thread_name_prefix="engine")

    async def run(self, stop: asyncio.Event) -> None:
        """Work until ``stop`` is set, then finish what is in flight. Raise Fenced or LogUnavailable."""
        self._loop = asyncio.get_running_loop()
        self._consumer.subscribe([self._settings.topic(t) for t in (BATCHES, BATCHES_LATE)], listener=self)
        beating = asyncio.create_task(self._beat())
        try:
            await self._consumer.start()
            intake = asyncio.create_task(self._intake(stop))
            await self._work(intake)
            await self._drain()
        finally:
            beating.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await beating
            await self._close()

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Take partitions over before the first record of theirs is read."""
        slots = [self._slot(tp) for tp in assigned]
        self._paused = frozenset()  # a new assignment begins with nothing paused
        try:
            opened = await asyncio.gather(*(open_slot(self._log, slot) for slot in slots))
        except IngestError as error:  # aiokafka would log it, and read on without us
            self._failure = self._failure or error
            self._wake.set()
            return
        for owned in opened:
            self._slots[owned.slot] = owned
            self._consumer.seek(self._partition(owned.slot), owned.position)
        if slots:
            _log.info("assigned", slots=[f"{s.topic}[{s.partition}]" for s in slots])

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Let partitions go: finish the open transaction, forget the rest, which the next owner reads again."""
        for slot in [self._slot(tp) for tp in revoked]:
            owned = self._slots.pop(slot, None)
            self._scheduler.drop(slot)
            if owned is None:
                continue
            writing = self._writing.get(slot)
            if writing:
                await asyncio.wait({writing})
            await owned.close()

    async def _intake(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            self._throttle()
            batches = await self._consumer.getmany(timeout_ms=POLL_MS)
            for tp, records in batches.items():
                owned = self._slots.get(self._slot(tp))
                for record in records if owned else ():
                    self._take(owned, from_consumer(self._settings, record))
            if batches:
                self._wake.set()

    def _take(self, owned: OwnedSlot | None, record: LogRecord) -> None:
        if owned is None:
            return
        job = owned.take(record, self._pipelines)
        self._metrics.batches.inc()
        if not job.settled:
            self._scheduler.add(owned.slot, job)

    async def _work(self, intake: asyncio.Task[None]) -> None:
        while not intake.done():
            self._wake.clear()
            self._start_what_can()
            waiting = asyncio.create_task(self._wake.wait())
            await asyncio.wait({waiting, intake}, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            if self._failure:
                intake.cancel()
                raise self._failure
        await intake

    def _start_what_can(self) -> None:
        while len(self._classifying) < self._instances and (merged := self._scheduler.next()):
            self._spawn_classify(merged)
        now_s = self._clock.monotonic()
        for slot, owned in self._slots.items():
            due_s = None if slot in self._writing else owned.due(now_s, self._patience_s)
            if due_s is not None and due_s <= now_s:
                self._writing[slot] = task = asyncio.create_task(self._write(owned))
                task.add_done_callback(functools.partial(self._finished, slot))
            elif due_s is not None:
                self._loop.call_later(due_s - now_s, self._wake.set)
        self._metrics.waiting.set(self._scheduler.waiting)

    @property
    def _patience_s(self) -> float:
        """How long settled results may wait to share a transaction: half of what the last row in the queue will wait.

        Without a queue it is nothing, and under load it is nothing that anyone would notice.
        """
        queue_s = self._scheduler.waiting * self._row_s / self._instances
        return min(MAX_PATIENCE_S, queue_s / 2)

    def _spawn_classify(self, merged: Merged) -> None:
        task = asyncio.create_task(self._classify(merged))
        self._classifying.add(task)
        task.add_done_callback(self._classified)

    async def _classify(self, merged: Merged) -> None:
        started = self._clock.monotonic()
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._pool, self._served[merged.pipeline].classify, merged)
        took_s = self._clock.monotonic() - started
        self._row_s = ROW_MEMORY * self._row_s + (1.0 - ROW_MEMORY) * took_s / merged.rows
        self._metrics.infer.observe(took_s)
        self._metrics.rows.labels(merged.pipeline).inc(merged.rows)

    async def _write(self, owned: OwnedSlot) -> None:
        started = self._clock.monotonic()
        self._metrics.written.inc(await owned.write(self._clock.now_ns))
        self._metrics.transaction.observe(self._clock.monotonic() - started)

    def _classified(self, task: asyncio.Task[None]) -> None:
        self._classifying.discard(task)
        self._noted(task)

    def _finished(self, slot: Slot, task: asyncio.Task[None]) -> None:
        self._writing.pop(slot, None)
        if slot in self._slots or task.cancelled():
            self._noted(task)
        elif task.exception():  # let go in the meantime: the new owner has fenced us, as it should
            _log.info("fenced", slot=f"{slot.topic}[{slot.partition}]", error=str(task.exception()))

    def _noted(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception():
            self._failure = self._failure or task.exception()
        self._wake.set()

    async def _drain(self) -> None:
        deadline = Deadline.after(STOP_S, self._clock)
        while any(owned.in_flight for owned in self._slots.values()) and not deadline.passed:
            self._start_what_can()
            running = {*self._classifying, *self._writing.values()}
            if not running:
                break
            await asyncio.wait(running, timeout=deadline.left, return_when=asyncio.FIRST_COMPLETED)
            if self._failure:
                raise self._failure

    def _throttle(self) -> None:
        """Pause what must wait: everything when too much is in flight, the late lane while live batches wait."""
        jobs = sum(owned.in_flight for owned in self._slots.values())
        size = sum(owned.in_flight_bytes for owned in self._slots.values())
        limit = MAX_WAITING_ROWS_PER_INSTANCE * self._instances
        full = self._scheduler.waiting > limit // (2 if self._paused else 1)
        full |= jobs > MAX_IN_FLIGHT_JOBS or size > MAX_IN_FLIGHT_BYTES
        ours = self._consumer.assignment()
        late = {tp for tp in ours if self._slot(tp).topic == BATCHES_LATE}
        wanted = frozenset(ours if full else late if self._scheduler.live_waits else ())
        self._consumer.pause(*(wanted - self._paused))
        self._consumer.resume(*((self._paused - wanted) & ours))
        self._paused = wanted

    async def _beat(self) -> None:
        while True:
            await self._tell("running" if self._slots else "starting")
            await asyncio.sleep(BEAT_S)

    async def _tell(self, state: Literal["starting", "running", "stopped"]) -> None:
        beat = Heartbeat(
            service="engine",
            instance=f"{socket.gethostname()}-{os.getpid()}",
            at_ns=self._clock.now_ns(),
            state=state,
            figures={
                "waiting_rows": float(self._scheduler.waiting),
                "in_flight_batches": float(sum(owned.in_flight for owned in self._slots.values())),
                "partitions": float(len(self._slots)),
            },
        )
        await self._log.produce(Outgoing(STATUS, 0, encode(beat), key=b"engine"))

    async def _close(self) -> None:
        for task in (*self._classifying, *self._writing.values()):
            task.cancel()
        await asyncio.gather(*self._classifying, *self._writing.values(), return_exceptions=True)
        await self._consumer.stop()
        for owned in self._slots.values():
            await owned.close()
        await self._log.close()
        self._pool.shutdown()

    def _slot(self, tp: TopicPartition) -> Slot:
        return Slot(tp.topic.removeprefix(self._settings.prefix), tp.partition)

    def _partition(self, slot: Slot) -> TopicPartition:
        return TopicPartition(self._settings.topic(slot.topic), slot.partition)
