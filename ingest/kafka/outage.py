"""Outages of Kafka: notice an outage, report it once, and repeat requests when it has ended."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import Protocol, TypeVar

from aiokafka import AIOKafkaProducer

from ingest.exceptions import ConfigError, LogUnavailable, StoppedInOutage
from ingest.kafka.kafkalog import TIMEOUT_S, KafkaLog
from ingest.kafka.log import GroupCommit, LogRecord, Outgoing, TopicPartition
from ingest.kafka.settings import KafkaSettings
from ingest.runtime import logs
from ingest.runtime.clock import Clock, SystemClock
from ingest.runtime.eventloop import running_beside

_log = logs.get("ingest.kafka.outage")
T = TypeVar("T")

CHECK_S = 5.0
"""Pause between two requests to the broker, in seconds. Requests may be this frequent because each is small."""
ANSWER_S = 10.0
"""Time without a response after which Kafka counts as unavailable, in seconds. On a busy machine, a response takes up
to a few seconds."""
WARN_AGAIN_S = 300.0
"""Time until the warning of an outage is repeated, in seconds. The time doubles with each further warning."""

STOP_IN_OUTAGE_S = 2.0
"""Maximum time in seconds that a stop waits for writes and commits while Kafka is unavailable. With the time to close
the connections, it is less than the 10 s after which a supervisor kills the process."""


class AskedLog(Protocol):
    """The part of ``KafkaLog`` that a KafkaWatch needs."""

    async def partitions(self) -> Mapping[str, int]:
        """Return the number of partitions of each topic. Raise LogUnavailable."""

    async def close(self) -> None:
        """Close the connection."""


class KafkaWatch:
    """Asks Kafka every few seconds for its topics, and tells whether Kafka answers.

    An outage is logged when it begins and when it ends. All methods are called in the event loop's thread; any thread
    may read ``out`` and ``failures``.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._since_s: float | None = None
        self._warn_at_s = 0.0
        self._error = ""
        self.running = False
        """Whether the watch asks Kafka at present."""
        self.failures = 0
        """How often Kafka did not answer. In an outage, the number grows at least every 20 s."""
        self._asked = 0
        self._answered = 0  # number of the last request that was answered
        self._news = asyncio.Condition()
        self._wanted = asyncio.Event()  # a caller waits for the next request

    @property
    def out(self) -> bool:
        """Whether Kafka is unavailable at present."""
        return self._since_s is not None

    def unready_reason(self) -> str:
        """Return since when and why Kafka is unavailable; empty if Kafka answers."""
        if self._since_s is None:
            return ""
        return f"Kafka has been unavailable for {self._clock.monotonic() - self._since_s:.0f} s: {self._error}"

    @contextlib.asynccontextmanager
    async def watching(
        self,
        make_log: Callable[[], AskedLog],
        stop: asyncio.Event,
        check: Callable[[Mapping[str, int]], None] = lambda partitions: None,
    ) -> AsyncIterator[None]:
        """Ask Kafka until the context ends.

        Each request after a failed one opens a new connection with ``make_log``, because a client keeps its first
        password and its first brokers. After an outage, ``check`` gets the number of partitions of each topic. If
        ``check`` or the watch fails, set ``stop``, and raise the error at the end of the context.
        """
        self.running = True
        try:
            async with running_beside(stop, self._run(make_log, check)):
                yield
        finally:
            self.running = False

    async def answer(self) -> bool:
        """Wait until Kafka answers a request that begins after this call. Return False if the watch ends before.

        That request begins at once, or when the present one has ended, without the pause of ``CHECK_S``.
        """
        wanted = self._asked + 1
        self._wanted.set()
        async with self._news:
            await self._news.wait_for(lambda: self._answered >= wanted or not self.running)
        return self._answered >= wanted

    async def unless_stopped(self, stop: asyncio.Event, work: Awaitable[T]) -> T:
        """Return the result of ``work``. Cancel ``work`` and raise StoppedInOutage if ``stop`` is set and Kafka is
        unavailable."""
        working, stopped = asyncio.ensure_future(work), asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({working, stopped}, return_when=asyncio.FIRST_COMPLETED)
            return await self.finish(working)
        finally:
            working.cancel()
            stopped.cancel()

    async def finish(self, work: Awaitable[T]) -> T:
        """Return the result of ``work``, which belongs to a stop of the service.

        Cancel ``work`` and raise StoppedInOutage if Kafka is unavailable and ``work`` takes more than
        ``STOP_IN_OUTAGE_S``.
        """
        working = asyncio.ensure_future(work)
        try:
            while not (await asyncio.wait({working}, timeout=STOP_IN_OUTAGE_S))[0]:
                if self.out:
                    raise StoppedInOutage(self.unready_reason())
            return await working
        finally:
            working.cancel()

    async def _run(self, make_log: Callable[[], AskedLog], check: Callable[[Mapping[str, int]], None]) -> None:
        log = None
        try:
            while True:
                log = log or make_log()
                partitions = await self._ask(log)
                if partitions is None:
                    await log.close()
                    log = None
                else:
                    if self.out:
                        check(partitions)
                    await self._found()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(CHECK_S):
                        await self._wanted.wait()
        except Exception as error:
            _log.error("kafka_watch_failed", error=str(error), kind=type(error).__name__, action="the service ends")
            raise
        finally:
            self.running = False
            async with self._news:
                self._news.notify_all()
            if log:
                await log.close()

    async def _ask(self, log: AskedLog) -> Mapping[str, int] | None:
        """Return the number of partitions of each topic, None if Kafka does not answer."""
        self._asked += 1
        self._wanted.clear()
        request = asyncio.ensure_future(log.partitions())
        try:
            while not (await asyncio.wait({request}, timeout=ANSWER_S))[0]:
                self._lost(f"no response for {ANSWER_S:g} s")
            return await request
        except (LogUnavailable, ConfigError, OSError) as error:  # or the secrets for Kafka cannot be read
            self._lost(str(error))
            return None
        finally:
            request.cancel()

    def _lost(self, error: str) -> None:
        now_s, self._error = self._clock.monotonic(), error
        self.failures += 1
        if self._since_s is None:
            self._since_s = self._warn_at_s = now_s
        if now_s >= self._warn_at_s:
            out_s = now_s - self._since_s
            _log.warning("kafka_unavailable", error=error, out_s=round(out_s, 1), action="waiting until it answers")
            self._warn_at_s = now_s + max(WARN_AGAIN_S, out_s)

    async def _found(self) -> None:
        if self._since_s is not None:
            _log.info("kafka_available_again", out_s=round(self._clock.monotonic() - self._since_s, 1))
        self._since_s, self._error = None, ""
        async with self._news:
            self._answered = self._asked
            self._news.notify_all()


class Patience:
    """Decides whether a failed request is repeated.

    While Kafka is unavailable, a request is repeated as often as it fails. If it fails twice although Kafka answers,
    the cause is another one, such as a missing topic.
    """

    def __init__(self, watch: KafkaWatch) -> None:
        self._watch = watch
        self._failures = 0
        self._kafka_failures = watch.failures

    async def wait(self, error: Exception) -> None:
        """Wait until Kafka answers. Raise ``error`` if the request must not be repeated, or if the watch ends."""
        if not self._watch.running:
            raise error
        during_outage = self._watch.out
        if not await self._watch.answer():
            raise error
        if during_outage or self._watch.failures != self._kafka_failures:
            self._kafka_failures, self._failures = self._watch.failures, 0
            return
        self._failures += 1
        if self._failures > 1:
            raise error


class PatientLog(KafkaLog):
    """A KafkaLog whose reads and single writes wait for the end of an outage, however long the outage takes.

    A record that ``produce`` has sent is not sent again: the idempotent producer holds it until the broker is back.
    Transactions (``writer``) are not repeated, because only a new writer can tell whether they were committed.
    Without an outage, all methods have the time limits of KafkaLog.
    """

    def __init__(
        self, settings: KafkaSettings, client_id: str, watch: KafkaWatch, timeout_s: float = TIMEOUT_S
    ) -> None:
        super().__init__(settings, client_id, timeout_s)
        self._watch = watch

    async def partitions(self) -> Mapping[str, int]:
        """Return the number of partitions of each topic whose name begins with the deployment's prefix."""
        return await self._patiently(super().partitions)

    async def ends(self, topic: str) -> Mapping[int, int]:
        """Return the last stable offset of each partition."""
        return await self._patiently(partial(super().ends, topic))

    async def settled_ends(self, topic: str, partitions: Sequence[int]) -> Mapping[int, int]:
        """Wait until all transactions that are open now have ended, then return the end of each partition."""
        return await self._patiently(partial(super().settled_ends, topic, partitions))

    async def beginnings(self, topic: str) -> Mapping[int, int]:
        """Return, for each partition, the first offset that retention has not deleted."""
        return await self._patiently(partial(super().beginnings, topic))

    async def offset_at(self, tp: TopicPartition, at_ms: int) -> int:
        """Return the offset of the first record written at or after ``at_ms`` (Unix time), else the partition's
        end."""
        return await self._patiently(partial(super().offset_at, tp, at_ms))

    async def commit_of(self, group: str, tp: TopicPartition) -> GroupCommit | None:
        """Return a group's committed offset with its metadata, None if the group has not committed."""
        return await self._patiently(partial(super().commit_of, group, tp))

    async def read(self, topic: str, partition: int, start: int, stop: int) -> AsyncGenerator[LogRecord, None]:
        """Yield the committed records from ``start`` up to but not including ``stop``. After an outage, continue
        after the last record."""
        patience = Patience(self._watch)
        while True:
            try:
                async with aclosing(super().read(topic, partition, start, stop)) as records:
                    async for record in records:
                        start = record.offset + 1
                        yield record
                return
            except LogUnavailable as error:
                await patience.wait(error)

    async def _new(self, make: Callable[[KafkaSettings, str], T]) -> T:
        return await self._patiently(partial(super()._new, make))

    async def _patiently(self, request: Callable[[], Awaitable[T]]) -> T:
        patience = Patience(self._watch)
        while True:
            try:
                return await request()
            except LogUnavailable as error:
                await patience.wait(error)

    async def _require_writable(self, producer: AIOKafkaProducer, record: Outgoing) -> None:
        await self._patiently(partial(super()._require_writable, producer, record))

    async def _acknowledged(self, sent: Awaitable[T]) -> T:
        """Wait for an acknowledgement for as long as Kafka is unavailable.

        Raise TimeoutError if Kafka answers other requests for a whole ``timeout_s`` without an acknowledgement.
        """
        waiting = asyncio.ensure_future(sent)
        try:
            while True:
                failures, out = self._watch.failures, self._watch.out
                if (await asyncio.wait({waiting}, timeout=self._timeout_s))[0]:
                    return await waiting
                if not self._watch.running or (not out and self._watch.failures == failures):
                    raise TimeoutError
        finally:
            waiting.cancel()
