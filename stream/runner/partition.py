"""The loop of one partition: pass chunks of records to the processor, write the processor's output, and advance the
position that may be committed."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from ingest.contract.topics import RESULTS
from ingest.kafka.acks import AckTracker
from ingest.kafka.log import Log, LogRecord, Outgoing, TopicPartition
from ingest.kafka.outage import KafkaWatch, Patience
from ingest.kafka.position import BEYOND_EVERY_END, commit, expired_between, start_position
from ingest.runtime import logs
from ingest.runtime.clock import Clock
from stream.exceptions import NotWritten, RecordsLost, TopicCreatedAgain
from stream.metrics import StreamMetrics
from stream.runner import chunk
from stream.runner.acks import Arrivals, FetchNumber
from stream.runner.processor import Processor, Stage, Work

if TYPE_CHECKING:
    from stream.runner.faust import FaustMember

_log = logs.get("stream.partition")
T = TypeVar("T")

QUEUE_RECORDS = 1024
"""Number of queued records of one partition at which fetching pauses. One core processes 1,024 of the smallest
records in about 20 ms. Fetching resumes at half of ``QUEUE_RECORDS``, so that the processor never runs out of work.
"""
QUEUE_BYTES = 4 * 1024 * 1024
"""Bytes of queued records of one partition at which fetching pauses: two fetches of the maximum size. A partition's
queue of frames reaches the limit in bytes before ``QUEUE_RECORDS``."""
IN_FLIGHT_WORKS = 16
"""Maximum number of ``Work`` objects (records to write, with the input offsets that they finish) of one partition
that the broker has not acknowledged. With 16 ``Work`` objects in flight, the loop does not wait for the broker, which
acknowledges within a few ms."""
IN_FLIGHT_BYTES = 8 * 1024 * 1024
"""Maximum bytes of output of one partition that the broker has not acknowledged: two batches of eight 416×416
pictures. The producer holds up to three copies of unacknowledged output in memory."""
OPEN_AT_ONCE = 2
"""Number of partitions that read back their state at the same time. If the one event loop read back the state of many
partitions at the same time, all partitions would start late, with full queues. With two partitions, the event loop
reads records of one partition while the other partition waits for the broker. The log keeps two connections for
reads."""
SETTLE_S = 1.0
"""Maximum time in seconds that a revoked partition waits for acknowledgements. At a rebalance, most acknowledgements
have already arrived, and the rebalance must not wait for a broker that is gone."""


EVENT_LOOP_S = 0.003
"""Maximum time in seconds that the previous record may have taken for a record to be processed in the event loop's
thread, if the processor allows it. Switching to a worker thread and back takes 0.1 to 0.3 ms of processor time. In 3
ms, other partitions are hardly delayed. If several such records wait, worker threads process them, on several
cores."""
SHORT_S = 0.001
"""Maximum time in seconds that a record of the previous chunk may have taken for a chunk of several records to be
processed in the event loop's thread, if the processor allows it. Short records are processed by Python code, which
runs on one core at a time (the GIL). Worker threads would only add switches between threads."""
LONG_CHUNK_S = 0.01
"""Maximum time in seconds that the previous chunk may have taken for a chunk of several records to be processed in
the event loop's thread. A longer chunk, such as one of hundreds of sensors with many rules, would delay other
partitions."""
BACKLOG_CHECK_S = 0.05
"""Time in seconds between two checks whether the records that delay a ``tick`` have arrived."""
MAX_MARKERS = 256
"""A gap of at most this number of offsets counts as transaction markers, and the broker is not asked whether records
were deleted. Retention deletes whole segments, which leave larger gaps on a busy partition."""


@dataclass(frozen=True, slots=True)
class Shared:
    """The resources that all partitions of one process share.

    ``opening`` limits how many partitions read back their state at once. ``failed`` ends the process; its arguments
    are the error, the partition and the last offset that was processed.
    """

    stage: Stage
    member: FaustMember
    log: Log
    clock: Clock
    pool: Executor
    metrics: StreamMetrics
    opening: asyncio.Semaphore
    failed: Callable[[BaseException, TopicPartition, int], None]
    watch: KafkaWatch


class PartitionLoop:
    """Passes the records of one partition to its processor, and writes the output.

    All methods are called in the event loop's thread.

    ``assignment`` is the number of the assignment among all assignments of this process. Records that were fetched in
    another assignment are dropped.
    """

    def __init__(self, shared: Shared, tp: TopicPartition, assignment: int) -> None:
        self.tp = tp
        self.fed = 0
        """Number of records that the processor has received."""
        self._shared = shared
        self._max_gap = MAX_MARKERS if tp.topic == RESULTS else 0
        self._arrivals = Arrivals(assignment)
        self._queue: deque[LogRecord] = deque()
        self._queued_bytes = 0
        self._arrived = asyncio.Event()
        self._draining = False
        self._paused = False
        self.held = False
        """Whether processing is suspended, because the readers of the output lag behind."""
        self.behind = False
        """Whether the readers of the output lag behind, so that the processor collects records before it writes."""
        self._tracker: AckTracker | None = None
        self._last_fed = -1
        self._writes: asyncio.Queue[tuple[Work, list[Awaitable[Any]]] | None] = asyncio.Queue()
        self._in_flight_bytes: deque[int] = deque()  # size of each work that the broker has not acknowledged
        self._acknowledged = asyncio.Event()
        self._calls = 0
        self._record_s = self._chunk_s = math.inf  # time that the latest chunk took, for each record and in all
        self._feeding = asyncio.create_task(self._guard(self._feed()))
        self._settling = asyncio.create_task(self._guard(self._settle()))

    @property
    def position(self) -> int | None:
        """The offset at which a restart must begin to read; None until the processor's state is open."""
        return None if self._tracker is None else self._tracker.position

    @property
    def due(self) -> FetchNumber:
        """Fetch number of the next record that should arrive. Fetch numbers count the fetched records of a partition
        from 0 in each assignment.
        """
        return self._arrivals.due

    @property
    def in_flight(self) -> int:
        """Number of records that the processor has received and not finished."""
        return 0 if self._tracker is None else self._tracker.open

    @property
    def queued(self) -> int:
        """Number of records that wait for the processor."""
        return len(self._queue)

    @property
    def busy(self) -> int:
        """Number of running processor calls, plus the number of ``Work`` objects that the broker has not
        acknowledged.

        Records that the processor holds back until a window is full do not count.
        """
        return len(self._in_flight_bytes) + self._calls

    def offer(self, records: Sequence[LogRecord], first: FetchNumber) -> None:
        """Queue records that were fetched together. Never block: a full queue still accepts records, and pauses
        fetching.

        ``first`` is the fetch number of the first of ``records``. Fetch numbers count the fetched records of a
        partition from 0 in each assignment.
        """
        if self._draining or not self._are_due(first, len(records)):
            return
        self._queue.extend(records)
        self._queued_bytes += sum(len(record.value) for record in records)
        self._arrived.set()
        if len(self._queue) >= QUEUE_RECORDS or self._queued_bytes >= QUEUE_BYTES:
            self._paused = True
            self._shared.member.pause(self.tp)

    def _are_due(self, first: FetchNumber, count: int) -> bool:
        try:
            return self._arrivals.take(first, count)
        except RecordsLost as error:
            self._shared.failed(error, self.tp, self._last_fed)
            return False

    def hold(self, held: bool) -> None:
        """Suspend or resume the processing of records. While processing is suspended, output that becomes due is
        still written."""
        self.held = held
        self._arrived.set()

    async def drain(self) -> None:
        """Process no more records, flush the processor, and return when the broker has acknowledged all output.

        If the processor's state is not open yet, return at once, because no record was processed. ``drop`` may be
        called while ``drain`` waits.
        """
        self._draining = True
        self._queue.clear()
        self._arrived.set()
        if self._tracker is None:
            self._feeding.cancel()
        await asyncio.wait({self._feeding})
        self._writes.put_nowait(None)
        await asyncio.wait({self._settling})

    async def drop(self) -> None:
        """Process no more records, do not flush, and wait at most ``SETTLE_S`` for outstanding acknowledgements.

        The next owner of the partition reads the unfinished records again.
        """
        self._draining = True
        self._queue.clear()
        self._feeding.cancel()
        await asyncio.wait({self._feeding})
        self._writes.put_nowait(None)
        await asyncio.wait({self._settling}, timeout=SETTLE_S)
        self._settling.cancel()
        await asyncio.wait({self._settling})

    async def _guard(self, work: Awaitable[None]) -> None:
        try:
            await work
        except Exception as error:
            self._shared.failed(error, self.tp, self._last_fed)

    async def _feed(self) -> None:
        stage, log = self._shared.stage, self._shared.log
        position, expired, recreated = await start_position(log, stage.name, self.tp)
        self._shared.metrics.expired_unread.inc(expired)
        self._shared.metrics.topic_recreated.inc(recreated)
        if not await self._shared.member.begin(self.tp, position, self.due.assignment):
            return  # the loops of the next assignment are about to replace this one
        async with self._shared.opening:
            processor = await stage.open(self.tp, position, log)
        self._tracker = AckTracker(position)
        _log.info("partition_opened", topic=self.tp.topic, partition=self.tp.partition, position=position)
        while not self._draining:
            for work in await self._step(processor, self._tracker):
                await self._write(work)
        for work in await self._in_pool(processor.flush):
            await self._write(work)

    async def _step(self, processor: Processor, tracker: AckTracker) -> Sequence[Work]:
        """Process the next chunk of records, or call ``tick`` if the deadline has passed, and return the resulting
        work.

        A processor with ``ticks_in_silence`` gets the waiting records before its ``tick``. If there is no record and
        the deadline has not passed, return the processor's idle work, or wait.
        """
        deadline, now_s = processor.deadline, self._shared.clock.monotonic()
        if deadline is not None and deadline <= now_s:
            if not (processor.ticks_in_silence and self._has_backlog()):
                return await self._in_pool(processor.tick)
            deadline = now_s + BACKLOG_CHECK_S
        if self.held or not self._queue:
            works = () if self.held or self.behind or self._in_flight_bytes else processor.idle()
            if not works:
                await self._wait(deadline)
            return works
        records = chunk.first_of(self._queue)
        await self._check_gap(tracker.next, records[0].offset)
        if processor.in_event_loop and self._is_short(len(records)):
            works, count = self._process(processor, records)
            await asyncio.sleep(0)  # other partitions and the Kafka client go on
        else:
            works, count = await self._in_pool(self._process, processor, records)
        for record in records[:count]:
            tracker.deliver(record.offset)
        self._remove(count)
        return chunk.joined(works)

    def _is_short(self, records: int) -> bool:
        """Return whether the next chunk, with a given number of records, may run in the event loop's thread, by the
        times of the previous chunk."""
        if records == 1:
            return self._record_s <= EVENT_LOOP_S
        return self._record_s <= SHORT_S and self._chunk_s <= LONG_CHUNK_S

    def _has_backlog(self) -> bool:
        """Return whether records wait in the queue, inside Faust, or at the broker."""
        return bool(self._queue) or self._shared.member.undelivered(self.tp, self.due) > 0

    def _process(self, processor: Processor, records: Sequence[LogRecord]) -> tuple[list[Work], int]:
        """Process records until a gap comes, ``CHUNK_S`` has passed, processing is suspended, or the loop drains.
        Return the resulting work and the number of processed records.

        The first record is always processed, because the gap before it has been counted.
        """
        monotonic, metrics = self._shared.clock.monotonic, self._shared.metrics
        works: list[Work] = []
        count = 0
        began = monotonic()
        for record in chunk.without_gap(records, self._max_gap):
            self._last_fed = record.offset
            self.fed += 1
            works += processor.process(record)
            count += 1
            if self._draining or self.held or monotonic() - began >= chunk.CHUNK_S:
                break
        works += processor.end_chunk()
        self._chunk_s = monotonic() - began
        self._record_s = self._chunk_s / count
        metrics.process.observe(self._record_s)
        metrics.records.inc(count)
        return works, count

    async def _check_gap(self, expected: int, found: int) -> None:
        """Count records that retention deleted before they were read.

        Raise TopicCreatedAgain if the offset is below the expected offset.

        Small gaps on the topic of results are transaction markers, because only this topic is written in
        transactions.
        """
        if found < expected:
            await commit(self._shared.log, self._shared.stage.name, self.tp, BEYOND_EVERY_END)
            raise TopicCreatedAgain(*self.tp, expected, found)
        if found - expected > self._max_gap:
            expired = await expired_between(self._shared.log, self._shared.stage.name, self.tp, expected, found)
            self._shared.metrics.expired_unread.inc(expired)

    def _remove(self, count: int) -> None:
        """Remove processed records from the queue, which is empty if the loop is draining."""
        for _ in range(min(count, len(self._queue))):
            self._queued_bytes -= len(self._queue.popleft().value)
        roomy = len(self._queue) <= QUEUE_RECORDS // 2 and self._queued_bytes <= QUEUE_BYTES // 2
        if self._paused and roomy:
            self._paused = False
            self._shared.member.resume(self.tp)

    async def _wait(self, deadline: float | None) -> None:
        self._arrived.clear()
        left = None if deadline is None else max(0.0, deadline - self._shared.clock.monotonic())
        try:
            async with asyncio.timeout(left):
                await self._arrived.wait()
        except TimeoutError:
            return

    async def _in_pool(self, function: Callable[..., T], *args: Any) -> T:
        self._calls += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._shared.pool, function, *args)
        finally:
            self._calls -= 1

    async def _write(self, work: Work) -> None:
        await self._room_for(work)
        self._writes.put_nowait((work, [await self._send(record) for record in work.records]))

    async def _send(self, record: Outgoing) -> Awaitable[Any]:
        """Pass a record to the producer, and return the awaitable of its acknowledgement.

        While Kafka is unavailable, the producer refuses a record for a topic that it has not written to yet. The
        record is passed again after the outage.
        """
        patience = Patience(self._shared.watch)
        while True:
            try:
                return await self._shared.member.send(record)
            except Exception as error:
                try:
                    await patience.wait(error)
                except Exception:
                    raise NotWritten(record.topic, record.partition, error) from error

    async def _room_for(self, work: Work) -> None:
        """Wait until the limits for unacknowledged output allow another ``Work``.

        If all earlier output is acknowledged, a ``Work`` of any size is allowed.
        """
        size = sum(len(record.value) for record in work.records)
        flying = self._in_flight_bytes
        while flying and (len(flying) >= IN_FLIGHT_WORKS or sum(flying) + size > IN_FLIGHT_BYTES):
            self._acknowledged.clear()
            await self._acknowledged.wait()
        flying.append(size)

    async def _settle(self) -> None:
        """Await the acknowledgements of each ``Work``'s records, in order, and mark the offsets of the ``Work`` as
        finished."""
        while (written := await self._writes.get()) is not None:
            work, sent = written
            outcomes = await asyncio.gather(*sent, return_exceptions=True)
            for record, outcome in zip(work.records, outcomes, strict=True):
                if isinstance(outcome, BaseException):
                    raise NotWritten(record.topic, record.partition, outcome) from outcome
            assert self._tracker is not None  # noqa: S101  (only an open processor returns works)
            self._tracker.finish(work.done)
            self._in_flight_bytes.popleft()
            self._acknowledged.set()
            if not self._in_flight_bytes:
                self._arrived.set()  # the processor may be idle now
