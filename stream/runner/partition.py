"""One partition's loop: feed its processor, write what it says, then let the offsets go.

Knows no Faust: it is handed records and a way to send, and tells its owner how far the partition is done.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, TypeVar

from ingest.kafka.log import Log, LogRecord, Outgoing, TopicPartition
from ingest.runtime import logs
from ingest.runtime.clock import Clock
from stream.exceptions import Lost, NotWritten
from stream.metrics import StreamMetrics
from stream.runner.acks import AckTracker
from stream.runner.faust.arrivals import Arrivals, Stamp
from stream.runner.processor import Processor, Stage, Work

_log = logs.get("stream.partition")
T = TypeVar("T")

QUEUE_RECORDS = 256
"""Records that may wait for one partition's processor: a second of the busiest partition that one core keeps up with,
so that fetching again, once half of them are gone, never leaves the processor without work."""
QUEUE_BYTES = 32 * 1024 * 1024
"""The same in bytes, for cameras with large pictures: two fetches of the largest size."""
IN_FLIGHT_WORKS = 16
"""Works handed to the producer and not yet acknowledged, per partition. The broker acknowledges in a few ms, so this
hides its latency."""
IN_FLIGHT_BYTES = 8 * 1024 * 1024
"""The same in bytes: two batches of eight 416×416 pictures. The producer holds each of them up to three times."""
SETTLE_S = 1.0
"""How long a partition that goes away waits for the broker's answers. They are usually there already; a rebalance
must not wait for a broker that is gone."""

Send = Callable[[Outgoing], Awaitable[Awaitable[Any]]]
"""Hands a record to the producer; the result is to be awaited for the broker's acknowledgement."""


@dataclass(frozen=True, slots=True)
class Context:
    """What all partitions of one process share.

    ``opening`` lets a few partitions at once read back their state. ``begin`` has a partition fetched from a
    position, as a run; False when it is another member's by now. ``failed`` is told what ended a loop, with the last
    offset that was fed; ``pause`` and ``resume`` are told when a partition has too many records waiting, and when it
    has room again. All are called in the event loop's thread.
    """

    stage: Stage
    log: Log
    clock: Clock
    pool: Executor
    metrics: StreamMetrics
    opening: asyncio.Semaphore
    send: Send
    begin: Callable[[TopicPartition, int, int], Awaitable[bool]]
    failed: Callable[[BaseException, TopicPartition, int], None]
    pause: Callable[[TopicPartition], None]
    resume: Callable[[TopicPartition], None]


class PartitionLoop:
    """Feeds one processor. All methods belong to the event loop's thread.

    ``run`` is the number of the assignment: what was fetched in another is not fed.
    """

    def __init__(
        self,
        context: Context,
        tp: TopicPartition,
        run: int,
        find_position: Callable[[TopicPartition], Awaitable[int]],
    ) -> None:
        self.tp = tp
        self.fed = 0
        """Records given to the processor since the start."""
        self._context = context
        self._find_position = find_position
        self._arrivals = Arrivals(run)
        self._queue: deque[LogRecord] = deque()
        self._queued_bytes = 0
        self._arrived = asyncio.Event()
        self._draining = False
        self._paused = False
        self._held = False
        self._tracker: AckTracker | None = None
        self._processor: Processor | None = None
        self._at = -1
        self._writes: asyncio.Queue[tuple[Work, list[Awaitable[Any]]] | None] = asyncio.Queue()
        self._flying: deque[int] = deque()  # bytes of each work that the broker has not acknowledged
        self._landed = asyncio.Event()
        self._calls = 0
        self._feeding = asyncio.create_task(self._guard(self._feed()))
        self._settling = asyncio.create_task(self._guard(self._settle()))

    @property
    def position(self) -> int | None:
        """The next offset that a restart must read; None while the state is still being opened."""
        return None if self._tracker is None else self._tracker.position

    @property
    def due(self) -> Stamp:
        """The next record that should arrive."""
        return self._arrivals.due

    @property
    def in_flight(self) -> int:
        """Records that were fed and are not done with."""
        return 0 if self._tracker is None else self._tracker.open

    @property
    def queued(self) -> int:
        """Records that wait for the processor."""
        return len(self._queue)

    @property
    def busy(self) -> int:
        """Calls of the processor and works on their way to the broker that have not come back.

        Records that the processor merely holds back, for a window to fill, are not among them.
        """
        return len(self._flying) + self._calls

    def offer(self, record: LogRecord, stamp: Stamp) -> None:
        """Queue a record. Never blocks: it asks for a pause when too many wait, and still takes what comes."""
        if self._draining or not self._arrived_whole(stamp):
            return
        self._queue.append(record)
        self._queued_bytes += len(record.value)
        self._arrived.set()
        if len(self._queue) >= QUEUE_RECORDS or self._queued_bytes >= QUEUE_BYTES:
            self._paused = True
            self._context.pause(self.tp)

    def _arrived_whole(self, stamp: Stamp) -> bool:
        try:
            return self._arrivals.take(stamp)
        except Lost as error:
            self._context.failed(error, self.tp, self._at)
            return False

    @property
    def held(self) -> bool:
        """Tell whether it is held back."""
        return self._held

    def hold(self, held: bool) -> None:
        """Feed nothing more for now, or go on. What the processor holds is still written when it is due."""
        self._held = held
        self._arrived.set()

    async def drain(self) -> None:
        """Feed nothing more, flush the processor, and return when the broker has all of it.

        A partition whose state is still being opened is let go: nothing was fed. One may be dropped meanwhile.
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
        """Feed nothing more and flush nothing; return when the broker has what was written already, or soon after.

        What is not done with will be read again by the partition's next owner.
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
            self._context.failed(error, self.tp, self._at)

    async def _feed(self) -> None:
        position = await self._find_position(self.tp)
        if not await self._context.begin(self.tp, position, self.due.run):
            return  # the loops of the next assignment are about to replace this one
        async with self._context.opening:
            processor = await self._context.stage.open(self.tp, position, self._context.log)
        self._tracker = AckTracker(position)
        self._processor = processor
        _log.info("partition opened", topic=self.tp.topic, partition=self.tp.partition, position=position)
        while not self._draining:
            for work in await self._step(processor, self._tracker):
                await self._write(work)
        for work in await self._in_pool(processor.flush):
            await self._write(work)

    async def _step(self, processor: Processor, tracker: AckTracker) -> Sequence[Work]:
        """Wait for a record or the deadline, whichever is first, and return the work that is due then."""
        if _passed(processor.deadline, self._context.clock):
            return await self._in_pool(processor.tick)
        if self._held or not self._queue:
            await self._wait(processor.deadline)
            return ()
        record = self._take()
        if not tracker.deliver(record.offset):
            return ()
        self._at = record.offset
        self.fed += 1
        self._context.metrics.records.inc()
        with self._context.metrics.process.time():
            return await self._in_pool(processor.process, record)

    def _take(self) -> LogRecord:
        record = self._queue.popleft()
        self._queued_bytes -= len(record.value)
        roomy = len(self._queue) <= QUEUE_RECORDS // 2 and self._queued_bytes <= QUEUE_BYTES // 2
        if self._paused and roomy:
            self._paused = False
            self._context.resume(self.tp)
        return record

    async def _wait(self, deadline: float | None) -> None:
        self._arrived.clear()
        left = None if deadline is None else max(0.0, deadline - self._context.clock.monotonic())
        try:
            async with asyncio.timeout(left):
                await self._arrived.wait()
        except TimeoutError:
            return

    async def _in_pool(self, function: Callable[..., T], *args: Any) -> T:
        self._calls += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._context.pool, function, *args)
        finally:
            self._calls -= 1

    async def _write(self, work: Work) -> None:
        await self._room_for(work)
        sent = []
        for record in work.records:
            try:
                sent.append(await self._context.send(record))
            except Exception as error:
                raise NotWritten(record.topic, record.partition, error) from error
        self._writes.put_nowait((work, sent))

    async def _room_for(self, work: Work) -> None:
        """Wait until a work may be in flight; one always may, however large."""
        size = sum(len(record.value) for record in work.records)
        while self._flying and (len(self._flying) >= IN_FLIGHT_WORKS or sum(self._flying) + size > IN_FLIGHT_BYTES):
            self._landed.clear()
            await self._landed.wait()
        self._flying.append(size)

    async def _settle(self) -> None:
        """Await the broker, work by work in order, and let go of the offsets."""
        while (entry := await self._writes.get()) is not None:
            work, sent = entry
            for record, outcome in zip(
                work.records, await asyncio.gather(*sent, return_exceptions=True), strict=True
            ):
                if isinstance(outcome, BaseException):
                    raise NotWritten(record.topic, record.partition, outcome) from outcome
            assert self._tracker is not None  # noqa: S101  (works come from a processor, which opened with it)
            self._tracker.finish(work.done)
            self._flying.popleft()
            self._landed.set()


def _passed(deadline: float | None, clock: Clock) -> bool:
    return deadline is not None and deadline <= clock.monotonic()
