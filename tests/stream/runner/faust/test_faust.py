"""Tests of the runner on a real Kafka: transactions, rebalances, records that cannot be written."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import pytest
from faust.types import TP

from ingest.contract.codec import MAX_RECORD_BYTES, decode
from ingest.contract.records import Heartbeat
from ingest.contract.topics import BATCHES, FRAMES, STATUS
from ingest.kafka import settings as clients
from ingest.kafka import topicadmin
from ingest.kafka.kafkalog import KafkaLog
from ingest.kafka.log import Log, LogRecord, Outgoing, TopicPartition
from ingest.kafka.settings import MAX_POLL_INTERVAL_MS, MAX_REQUEST_BYTES, KafkaSettings
from ingest.runtime.clock import Deadline
from ingest.runtime.service import EXIT_FAILED
from stream.runner.echo import EchoProcessor, EchoStage
from stream.runner.loop import Runner
from stream.runner.processor import Work

pytestmark = pytest.mark.kafka

PATIENCE_S = 60.0
PARTITIONS = 2


@pytest.fixture
async def settings(kafka: str, prefix: str) -> AsyncIterator[KafkaSettings]:
    settings = KafkaSettings(bootstrap=kafka, prefix=prefix)
    await topicadmin.create(settings, PARTITIONS)
    yield settings
    await topicadmin.remove(settings, prefix)


@pytest.fixture
async def log(settings: KafkaSettings) -> AsyncIterator[KafkaLog]:
    async with KafkaLog(settings, "test") as log:
        yield log


@contextlib.asynccontextmanager
async def running(
    settings: KafkaSettings, log: Log, stage: EchoStage, rig: Callable[[Runner], None] = lambda _: None
) -> AsyncIterator[list[int]]:
    """Run a worker in this process, after a call of ``rig``; yield the list of its exit codes."""
    codes: list[int] = []
    stop = asyncio.Event()
    runner = Runner(stage, settings, log, exit=codes.append)
    rig(runner)
    task = asyncio.create_task(runner.run(stop))
    try:
        yield codes
    finally:
        stop.set()
        await asyncio.wait_for(task, PATIENCE_S)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    deadline = Deadline.after(PATIENCE_S)
    while not await condition():
        assert not deadline.passed
        await asyncio.sleep(0.05)


async def values(log: Log, topic: str, partition: int) -> list[bytes]:
    end = (await log.ends(topic))[partition]
    return [r.value async for r in log.read(topic, partition, 0, end)]


async def test_aborted_records_are_skipped_and_the_commit_moves_past_their_offsets(
    settings: KafkaSettings, log: KafkaLog
) -> None:
    producer = clients.producer(settings, "test", transactional_id="t")
    await producer.start()
    topic = settings.topic(FRAMES)
    async with producer.transaction():
        await producer.send_and_wait(topic, b"first", partition=0)
    for _ in range(3):
        await producer.begin_transaction()
        await producer.send_and_wait(topic, b"aborted", partition=0)
        await producer.abort_transaction()
    async with producer.transaction():
        meta = await producer.send_and_wait(topic, b"second", partition=0)
    await producer.stop()

    async with running(settings, log, EchoStage()):

        async def committed() -> bool:
            return await log.committed("echo", TopicPartition(FRAMES, 0)) == meta.offset + 1

        async def at_rest() -> bool:
            return any(beat.figures["lag"] == 0 and beat.figures["records"] == 2 for beat in await beats(log))

        await until(committed)
        await until(at_rest)  # markers after the last record are no lag: the watchdog would end the process
    assert await values(log, BATCHES, 0) == [b"first", b"second"]


async def test_partitions_move_between_workers_without_lost_records_or_decreasing_commits(
    settings: KafkaSettings, log: KafkaLog
) -> None:
    async def feed(first: int, last: int) -> None:
        for n in range(first, last):
            await log.produce(Outgoing(FRAMES, n % PARTITIONS, b"%d" % n))

    async def committed(count: int) -> bool:
        positions = [await log.committed("echo", TopicPartition(FRAMES, p)) for p in range(PARTITIONS)]
        return positions == [count // PARTITIONS] * PARTITIONS

    workers: list[Runner] = []
    last = 20
    async with running(settings, log, EchoStage(hold=3)) as codes:
        await feed(0, last)
        await until(lambda: committed(last))
        async with running(settings, log, EchoStage(hold=3), workers.append) as other_codes:
            while not workers[0]._joined:  # the second member joins while these records are processed
                await feed(last, last + 20)
                last += 20
            await until(lambda: committed(last))
        await feed(last, last + 40)
        await until(lambda: committed(last + 40))
    assert codes == other_codes == []
    for partition in range(PARTITIONS):
        written = [int(v) for v in await values(log, BATCHES, partition)]
        kept = [n for i, n in enumerate(written) if n > max(written[:i], default=-1)]
        assert kept == list(range(partition, last + 40, PARTITIONS))


async def test_a_record_is_not_dropped_although_faust_has_read_a_later_record(
    settings: KafkaSettings, log: KafkaLog
) -> None:
    def read_far(runner: Runner) -> None:
        for partition in range(PARTITIONS):
            runner._member._app.consumer._read_offset[TP(settings.topic(FRAMES), partition)] = 1000

    await log.produce(Outgoing(FRAMES, 0, b"one"))
    async with running(settings, log, EchoStage(), read_far):
        await until(lambda: fed(log, 1))


class Straddle:
    """Forces a fetch that begins before a rebalance and ends in the new assignment.

    Partitions are revoked only while such a fetch waits, and records flow again only after it has returned.
    """

    def __init__(self) -> None:
        self.waits = asyncio.Event()
        self.returned = asyncio.Event()
        self.seeks = 0

    def rig(self, runner: Runner) -> None:
        """Intercept the calls between Faust's consumer, its thread and the app."""
        self._loop = asyncio.get_running_loop()
        consumer = runner._member._app.consumer
        self._revoke, self._getmany = consumer.on_partitions_revoked, consumer._getmany
        self._fetch = consumer._thread._fetch_records
        consumer.on_partitions_revoked, consumer._getmany = self._revoked, self._got
        consumer.seek_to_committed = self._seek
        consumer._thread._fetch_records = self._fetched
        runner._member._app.on_rebalance_complete.connect(self._resume)

    async def _revoked(self, revoked: set[Any]) -> None:
        if revoked:
            await asyncio.wait_for(self.waits.wait(), PATIENCE_S)
        await self._revoke(revoked)

    async def _fetched(self, consumer: Any, partitions: Any, timeout: float, max_records: int) -> Any:
        rebalances = consumer._subscription.reassignment_in_progress
        fetch = asyncio.create_task(
            self._fetch(consumer, partitions, timeout=PATIENCE_S if rebalances else timeout, max_records=max_records)
        )
        await asyncio.sleep(0)  # the fetch is now running
        if rebalances and not fetch.done():
            self._loop.call_soon_threadsafe(self.waits.set)
        return await fetch

    async def _got(self, active_partitions: Any, timeout: float) -> Any:
        records = await self._getmany(active_partitions, timeout)
        if self.waits.is_set():
            self.returned.set()
        return records

    async def _seek(self) -> dict[Any, int]:
        self.seeks += 1
        return {}

    async def _resume(self, _app: Any, **_: Any) -> None:
        if self.waits.is_set():
            await asyncio.wait_for(self.returned.wait(), PATIENCE_S)


async def test_a_rebalance_before_the_first_commit_loses_no_record(settings: KafkaSettings, log: KafkaLog) -> None:
    stage, straddle = EchoStage(hold=1000, delay_s=10 * PATIENCE_S), Straddle()

    async def feed(first: int, last: int) -> None:
        for n in range(first, last):
            await log.produce(Outgoing(FRAMES, n % PARTITIONS, b"%d" % n))

    await feed(0, 40 * PARTITIONS)
    async with running(settings, log, stage, straddle.rig) as codes:
        await until(lambda: fed(log, 40 * PARTITIONS))
        async with running(settings, log, stage) as other_codes:
            await asyncio.wait_for(straddle.returned.wait(), PATIENCE_S)
            assert {await log.committed("echo", TopicPartition(FRAMES, p)) for p in range(PARTITIONS)} == {None}
            stage.hold = 1
            await feed(40 * PARTITIONS, 41 * PARTITIONS)
            await until(lambda: committed_all(log, 41))
    assert codes == other_codes == []
    assert straddle.seeks == 0  # Faust hides a seek that fails
    for partition in range(PARTITIONS):
        written = {int(v) for v in await values(log, BATCHES, partition)}
        assert written == set(range(partition, 41 * PARTITIONS, PARTITIONS))


class SlowFlush(EchoProcessor):
    """An echo processor whose flush waits for an event."""

    begun = threading.Event()
    go_on = threading.Event()

    def flush(self) -> Sequence[Work]:
        """Wait for ``go_on``, then write the group."""
        self.begun.set()
        self.go_on.wait(PATIENCE_S)
        return super().flush()


class SlowFlushStage(EchoStage):
    async def open(self, tp: TopicPartition, position: int, log: Log) -> SlowFlush:
        return SlowFlush(self)


async def test_a_rebalance_while_a_worker_stops_does_not_disturb_the_stop(
    settings: KafkaSettings, log: KafkaLog
) -> None:
    assigned = asyncio.Semaphore(0)

    def watch(runner: Runner) -> None:
        runner._member._app.on_partitions_assigned.connect(count, weak=False)

    async def count(*_: Any, **__: Any) -> None:
        assigned.release()

    async def flushing() -> bool:
        return SlowFlush.begun.is_set()

    await log.produce(Outgoing(FRAMES, 0, b"0"))
    await log.produce(Outgoing(FRAMES, 1, b"1"))
    async with contextlib.AsyncExitStack() as first:
        codes = await first.enter_async_context(running(settings, log, SlowFlushStage(hold=1000, delay_s=1e6), watch))
        await until(lambda: fed(log, 2))
        stopping = asyncio.create_task(first.aclose())
        await until(flushing)
        async with running(settings, log, EchoStage()) as other_codes:
            for _ in range(2):
                await asyncio.wait_for(assigned.acquire(), PATIENCE_S)  # at the start, and when another member joins
            SlowFlush.go_on.set()
            await stopping
            await until(lambda: committed_all(log, 1))
    assert codes == other_codes == []
    assert [beat.state for beat in await beats(log)].count("stopped") == 2
    assert [set(await values(log, BATCHES, p)) for p in range(PARTITIONS)] == [{b"0"}, {b"1"}]


async def committed_all(log: Log, offset: int) -> bool:
    """Return whether every partition is committed up to an offset."""
    return all([await log.committed("echo", TopicPartition(FRAMES, p)) == offset for p in range(PARTITIONS)])


async def fed(log: Log, records: int) -> bool:
    """Return whether a heartbeat reports this number of processed records."""
    return any(beat.figures["records"] == records for beat in await beats(log))


async def test_an_output_record_that_cannot_be_written_ends_the_stream_worker(
    settings: KafkaSettings, log: KafkaLog
) -> None:
    class Large(EchoProcessor):
        def process(self, record: LogRecord) -> Sequence[Work]:
            return (Work((Outgoing(BATCHES, record.partition, bytes(MAX_REQUEST_BYTES + 1)),), (record.offset,)),)

    class LargeStage(EchoStage):
        async def open(self, tp: TopicPartition, position: int, log: Log) -> Large:
            return Large(self)

    await log.produce(Outgoing(FRAMES, 0, b"small"))
    async with running(settings, log, LargeStage()) as codes:

        async def failed() -> bool:
            return bool(codes)

        await until(failed)
    assert codes[0] == EXIT_FAILED
    assert await log.committed("echo", TopicPartition(FRAMES, 0)) in (None, 0)


async def test_a_stream_worker_processes_a_record_of_the_maximum_size(settings: KafkaSettings, log: KafkaLog) -> None:
    await log.produce(Outgoing(FRAMES, 1, b"before"))
    await log.produce(Outgoing(FRAMES, 1, bytes(MAX_RECORD_BYTES)))
    await log.produce(Outgoing(FRAMES, 1, b"after"))
    async with running(settings, log, EchoStage()):

        async def all_of_it() -> bool:
            return (await log.ends(BATCHES))[1] == 3

        await until(all_of_it)
    assert [len(v) for v in await values(log, BATCHES, 1)] == [6, MAX_RECORD_BYTES, 5]


async def test_a_group_member_whose_partitions_are_all_paused_stays_in_the_group(
    settings: KafkaSettings, log: KafkaLog
) -> None:
    workers: list[Runner] = []
    async with running(settings, log, EchoStage(), workers.append):
        await until(lambda: fed(log, 0))
        consumer = workers[0]._member._app.consumer
        for partition in range(PARTITIONS):
            consumer.pause_fetching(TP(settings.topic(FRAMES), partition))
        group = consumer._thread._consumer._subscription

        async def at_rest() -> bool:
            return bool(group._fetch_count == 0)

        await until(at_rest)
        # as if all partitions had been paused for most of the interval; at its end, the member would leave at once
        group._last_fetch_ended -= 0.9 * MAX_POLL_INTERVAL_MS / 1000

        async def seen() -> bool:
            return bool(group.fetcher_idle_time < MAX_POLL_INTERVAL_MS / 2000)

        await until(seen)


async def test_a_stream_worker_reports_record_counts_and_lag_in_its_heartbeats(
    settings: KafkaSettings, log: KafkaLog
) -> None:
    async with running(settings, log, EchoStage()):
        await log.produce(Outgoing(FRAMES, 0, b"one"))

        async def reported() -> bool:
            return any(beat.figures["records"] == 1 for beat in await beats(log))

        await until(reported)
    last = (await beats(log))[-1]
    assert (last.service, last.state) == ("echo", "stopped")
    assert last.figures == {"records": 1, "lag": 0, "in_flight": 0, "held_back": 0, "partitions": PARTITIONS}


async def beats(log: Log) -> list[Heartbeat]:
    return [decode(Heartbeat, value) for value in await values(log, STATUS, 0)]
