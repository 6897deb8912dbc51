"""A runner without Faust, threads or waiting, for tests of a stage's logic and for replays.

Like the Kafka runner, the memory runner processes records in offset order, and writes outputs in the order in which
the processor returns the outputs. A commit stops before the first unfinished record.
"""

from __future__ import annotations

from collections.abc import Sequence

from ingest.kafka.acks import AckTracker
from ingest.kafka.log import Log, LogRecord, TopicPartition
from ingest.kafka.position import start_position
from ingest.runtime.clock import ManualClock
from stream.runner.processor import Processor, Stage, Work


class MemoryRunner:
    """A runner of one stage over all partitions of its topics.

    A new runner continues at the offsets that the last runner committed. To simulate a kill, drop a runner without
    calling ``stop``.
    """

    def __init__(self, stage: Stage, log: Log, clock: ManualClock) -> None:
        self._stage = stage
        self._log = log
        self._clock = clock
        self._parts: dict[TopicPartition, _Part] = {}

    async def run(self) -> int:
        """Process the records that the log has now, and call ``tick`` of the processors whose deadline has passed.

        Return the number of processed records.
        """
        fed = 0
        for topic in self._stage.topics:
            for partition in await self._log.ends(topic):
                fed += await self.step(TopicPartition(topic, partition))
        await self.tick()
        return fed

    async def step(self, tp: TopicPartition, most: int | None = None) -> int:
        """Process the waiting records of one partition, at most ``most`` of them.

        Return the number of processed records.
        """
        part, end = await self._part(tp), (await self._log.ends(tp.topic))[tp.partition]
        stop = end if most is None else min(end, part.read + most)
        fed = 0
        async for record in self._log.read(*tp, part.read, stop):
            fed += 1
            part.read = record.offset + 1
            await self._apply(part, part.feed(record))
        part.read = max(part.read, stop)
        return fed

    def position(self, tp: TopicPartition) -> int | None:
        """Return the offset of the next record of a partition; None if no record of it was processed yet."""
        return self._parts[tp].read if tp in self._parts else None

    def release(self, tp: TopicPartition) -> None:
        """Drop the processor of a partition without a flush, as in a rebalance.

        The next owner reads the unfinished records again.
        """
        self._parts.pop(tp, None)

    async def tick(self) -> None:
        """Call ``tick`` of the processors whose deadline has passed."""
        for part in self._parts.values():
            deadline = part.processor.deadline
            if deadline is not None and deadline <= self._clock.monotonic():
                await self._apply(part, part.processor.tick())

    async def advance(self, seconds: float) -> None:
        """Advance the clock, and call ``tick`` at every deadline up to the new time, as the Kafka runner does."""
        until = self._clock.monotonic() + seconds
        while (due := self._next_deadline()) is not None and due <= until:
            self._clock.seconds = max(self._clock.seconds, due)
            await self.tick()
            if self._next_deadline() == due:
                raise RuntimeError(
                    f"{self._stage.name}: tick left the deadline {due} in the past: expected a later deadline"
                )
        self._clock.seconds = max(self._clock.seconds, until)

    async def stop(self) -> None:
        """Flush and drop every processor."""
        for part in self._parts.values():
            await self._apply(part, part.processor.flush())
        self._parts.clear()

    async def _part(self, tp: TopicPartition) -> _Part:
        if tp not in self._parts:
            position = (await start_position(self._log, self._stage.name, tp)).offset
            processor = await self._stage.open(tp, position, self._log)
            self._parts[tp] = _Part(tp, processor, position)
        return self._parts[tp]

    async def _apply(self, part: _Part, works: Sequence[Work]) -> None:
        for work in works:
            for record in work.records:
                await self._log.produce(record)
            before, after = part.tracker.position, part.tracker.finish(work.done)
            if after != before:
                writer = await self._log.writer(f"{self._stage.name}-{part.tp.topic}-{part.tp.partition}")
                await writer.write((), self._stage.name, {part.tp: after})
                await writer.close()

    def _next_deadline(self) -> float | None:
        deadlines = [part.processor.deadline for part in self._parts.values()]
        return min((d for d in deadlines if d is not None), default=None)


class _Part:
    def __init__(self, tp: TopicPartition, processor: Processor, position: int) -> None:
        self.tp = tp
        self.processor = processor
        self.read = position
        self.tracker = AckTracker(position)

    def feed(self, record: LogRecord) -> Sequence[Work]:
        if not self.tracker.deliver(record.offset):
            return ()
        return [*self.processor.process(record), *self.processor.end_chunk()]
