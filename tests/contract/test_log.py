"""The contract of every log, run against the log in memory and the log on a real Kafka."""

from __future__ import annotations

import asyncio
import gc
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing

import pytest

from deploy.local.kafka.broker import Broker
from ingest.contract.codec import MAX_RECORD_BYTES
from ingest.contract.topics import BATCHES, CONFIG, DEADLETTER, FRAMES, RESULTS, STATUS
from ingest.exceptions import Fenced, LogUnavailable, Oversize
from ingest.kafka import settings as clients
from ingest.kafka import topicadmin
from ingest.kafka.kafkalog import KafkaLog
from ingest.kafka.log import Log, LogRecord, Outgoing, Position, TopicPartition
from ingest.kafka.memorylog import MemoryLog
from ingest.kafka.settings import KafkaSettings

PARTITIONS = 2
SOURCE = TopicPartition(BATCHES, 0)


def numbered(count: int, topic: str = FRAMES, partition: int = 0) -> list[Outgoing]:
    return [Outgoing(topic, partition, str(number).encode()) for number in range(count)]


async def read_all(log: Log, topic: str, partition: int = 0) -> list[LogRecord]:
    start = (await log.beginnings(topic))[partition]
    stop = (await log.ends(topic))[partition]
    return [record async for record in log.read(topic, partition, start, stop)]


async def values(log: Log, topic: str, partition: int = 0) -> list[bytes]:
    return [record.value for record in await read_all(log, topic, partition)]


class LogContract(ABC):
    """Tests that every log passes. A subclass provides the log."""

    @pytest.fixture
    @abstractmethod
    def log(self) -> Log:
        """Return a log with every topic and two partitions in the data path. The fixture closes the log."""

    @abstractmethod
    async def abort_one(self, log: Log, topic: str) -> None:
        """Write a record into partition 0 in a transaction, and abort the transaction.

        Do nothing if the log has no transactions.
        """

    async def test_topics_have_the_partitions_of_the_contract(self, log: Log) -> None:
        found = await log.partitions()
        assert found[FRAMES] == found[RESULTS] == PARTITIONS
        assert found[CONFIG] == found[DEADLETTER] == found[STATUS] == 1

    async def test_a_record_is_read_as_it_was_written(self, log: Log) -> None:
        headers = {"sightline-lane": b"live", "empty": b"", "ünïcode": b"\xff\x00"}
        at = await log.produce(Outgoing(FRAMES, 1, b"\x00value\xff", key=b"gate", headers=headers))
        [record] = await read_all(log, FRAMES, 1)
        assert record.timestamp_ms > 1_600_000_000_000
        assert record == LogRecord(
            FRAMES, 1, at.offset, b"gate", b"\x00value\xff", headers, timestamp_ms=record.timestamp_ms
        )

    async def test_a_record_may_have_no_key_and_no_headers(self, log: Log) -> None:
        await log.produce(Outgoing(STATUS, 0, b"beat"))
        [record] = await read_all(log, STATUS)
        assert (record.key, record.value, dict(record.headers)) == (None, b"beat", {})

    @pytest.mark.parametrize(("topic", "key"), [(STATUS, None), (STATUS, b"agent"), (CONFIG, b"camera/gate")])
    async def test_a_record_with_an_empty_value_is_read_with_an_empty_value(
        self, log: Log, topic: str, key: bytes | None
    ) -> None:
        await log.produce(Outgoing(topic, 0, b"", key=key))
        [record] = await read_all(log, topic)
        assert (record.key, record.value) == (key, b"")

    async def test_a_record_that_is_too_large_is_refused_with_its_whole_transaction(self, log: Log) -> None:
        huge = Outgoing(FRAMES, 0, bytes(MAX_RECORD_BYTES + 1))
        with pytest.raises(Oversize):
            await log.produce(huge)
        with pytest.raises(Oversize):
            await (await log.writer("node-0")).write([Outgoing(FRAMES, 0, b"x"), huge], "engines", {SOURCE: 1})
        assert await values(log, FRAMES) == []

    async def test_a_record_of_the_largest_size_is_written(self, log: Log) -> None:
        await log.produce(Outgoing(FRAMES, 0, bytes(MAX_RECORD_BYTES), headers={"sightline-frames": bytes(32_000)}))
        assert [len(value) for value in await values(log, FRAMES)] == [MAX_RECORD_BYTES]

    async def test_records_of_a_partition_are_read_in_the_order_of_writing(self, log: Log) -> None:
        positions = [await log.produce(record) for record in numbered(20)]
        assert positions == [Position(0, offset) for offset in range(20)]
        assert await values(log, FRAMES) == [record.value for record in numbered(20)]
        assert await values(log, FRAMES, 1) == []

    async def test_records_sent_concurrently_all_arrive(self, log: Log) -> None:
        positions = await asyncio.gather(*(log.produce(record) for record in numbered(20)))
        assert sorted(positions) == [Position(0, offset) for offset in range(20)]

    async def test_reading_a_partition_ends_before_the_stop_offset(self, log: Log) -> None:
        for record in numbered(10):
            await log.produce(record)
        assert [r.offset async for r in log.read(FRAMES, 0, 3, 7)] == [3, 4, 5, 6]

    async def test_reading_an_empty_offset_range_yields_nothing(self, log: Log) -> None:
        await log.produce(Outgoing(FRAMES, 0, b"one"))
        assert [r async for r in log.read(FRAMES, 0, 1, 1)] == []
        assert [r async for r in log.read(FRAMES, 1, 0, 0)] == []

    async def test_a_reader_may_stop_before_the_end_of_its_range(self, log: Log) -> None:
        for record in numbered(5):
            await log.produce(record)
        async with aclosing(log.read(FRAMES, 0, 0, 5)) as records:
            async for record in records:
                assert record.value == b"0"
                break

    async def test_consecutive_and_concurrent_reads_of_a_log_do_not_mix_their_records(self, log: Log) -> None:
        for topic, partition in ((FRAMES, 0), (FRAMES, 1), (RESULTS, 0)):
            for record in numbered(20, topic, partition):
                await log.produce(record)

        async def one(topic: str, partition: int, start: int, stop: int) -> None:
            found = [(r.topic, r.partition, r.offset) async for r in log.read(topic, partition, start, stop)]
            assert found == [(topic, partition, offset) for offset in range(start, stop)]

        for start in (7, 3, 3, 19, 0):  # backwards, the same again, the last one, all
            await one(FRAMES, 0, start, start + 1)
            await one(RESULTS, 0, 2, 5)
        async with aclosing(log.read(FRAMES, 0, 0, 20)) as left_early:
            async for _ in left_early:
                break
        await asyncio.gather(
            *(one(topic, p, n, n + 3) for n in (0, 5, 10) for topic, p in ((FRAMES, 1), (RESULTS, 0)))
        )

    async def test_a_log_returns_the_first_and_end_offset_of_each_partition_of_a_topic(self, log: Log) -> None:
        assert await log.ends(FRAMES) == {0: 0, 1: 0}
        for record in numbered(3, partition=1):
            await log.produce(record)
        assert await log.ends(FRAMES) == {0: 0, 1: 3}
        assert await log.beginnings(FRAMES) == {0: 0, 1: 0}
        assert await log.ends(STATUS) == {0: 0}

    async def test_an_offset_is_found_by_the_time_at_which_its_record_was_written(self, log: Log) -> None:
        for value in (b"a", b"b"):
            await log.produce(Outgoing(FRAMES, 1, value))
        tp = TopicPartition(FRAMES, 1)
        times = [record.timestamp_ms async for record in log.read(FRAMES, 1, 0, 2)]
        assert [await log.offset_at(tp, at) for at in (times[0], times[1] + 1)] == [0, 2]

    async def test_the_end_offsets_of_only_the_requested_partitions_are_returned_when_no_transaction_is_open(
        self, log: Log
    ) -> None:
        for record in numbered(3, RESULTS, 1):
            await log.produce(record)
        assert await log.settled_ends(RESULTS, [1]) == {1: 3}
        assert await log.settled_ends(RESULTS, [0, 1]) == {0: 0, 1: 3}

    async def test_records_deleted_by_retention_are_skipped(self, log: Log) -> None:
        for record in numbered(5):
            await log.produce(record)
        await log.delete_before(TopicPartition(FRAMES, 0), 3)
        assert await log.beginnings(FRAMES) == {0: 3, 1: 0}
        assert await log.ends(FRAMES) == {0: 5, 1: 0}
        assert [r.offset async for r in log.read(FRAMES, 0, 0, 5)] == [3, 4]

    async def test_aborted_records_are_skipped_without_a_delay(self, log: Log) -> None:
        await log.produce(Outgoing(RESULTS, 0, b"first"))
        await self.abort_one(log, RESULTS)
        await log.produce(Outgoing(RESULTS, 0, b"second"))
        await self.abort_one(log, RESULTS)
        assert await values(log, RESULTS) == [b"first", b"second"]

    async def test_a_partition_with_only_aborted_records_reads_as_empty(self, log: Log) -> None:
        await self.abort_one(log, RESULTS)
        assert await values(log, RESULTS) == []

    async def test_a_writer_writes_records_and_commits_input_offsets_together(self, log: Log) -> None:
        writer = await log.writer("node-0")
        assert await log.committed("engines", SOURCE) is None
        await writer.write([*numbered(3, RESULTS), Outgoing(DEADLETTER, 0, b"bad")], "engines", {SOURCE: 7})
        assert await values(log, RESULTS) == [b"0", b"1", b"2"]
        assert await values(log, DEADLETTER) == [b"bad"]
        assert await log.committed("engines", SOURCE) == 7
        await writer.write(numbered(1, RESULTS), "engines", {SOURCE: 8})
        assert await values(log, RESULTS) == [b"0", b"1", b"2", b"0"]
        assert await log.committed("engines", SOURCE) == 8
        await writer.close()

    async def test_input_offsets_can_be_committed_without_writing_records(self, log: Log) -> None:
        writer = await log.writer("node-0")
        await writer.write([], "engines", {SOURCE: 3, TopicPartition(BATCHES, 1): 4})
        assert await log.committed("engines", SOURCE) == 3
        assert await log.committed("engines", TopicPartition(BATCHES, 1)) == 4
        assert await log.committed("others", SOURCE) is None

    async def test_records_can_be_written_without_committing_input_offsets(self, log: Log) -> None:
        writer = await log.writer("node-0")
        await writer.write(numbered(2, RESULTS), "engines", {})
        assert await values(log, RESULTS) == [b"0", b"1"]
        await writer.write([], "engines", {})
        assert await log.committed("engines", SOURCE) is None

    async def test_a_newer_transactional_writer_fences_the_older_writer_of_the_same_id(self, log: Log) -> None:
        older = await log.writer("node-0")
        await older.write([Outgoing(RESULTS, 0, b"older")], "engines", {SOURCE: 1})
        newer = await log.writer("node-0")
        with pytest.raises(Fenced, match="node-0"):
            await older.write([Outgoing(RESULTS, 0, b"zombie")], "engines", {SOURCE: 2})
        await newer.write([Outgoing(RESULTS, 0, b"newer")], "engines", {SOURCE: 3})
        assert await values(log, RESULTS) == [b"older", b"newer"]
        assert await log.committed("engines", SOURCE) == 3

    async def test_a_fenced_writer_stays_fenced_and_can_be_closed(self, log: Log) -> None:
        older = await log.writer("node-0")
        await log.writer("node-0")
        for _ in range(2):
            with pytest.raises(Fenced):
                await older.write(numbered(3, RESULTS), "engines", {SOURCE: 2})
        await older.close()
        await older.close()
        assert await values(log, RESULTS) == []

    async def test_transactional_writers_of_different_ids_do_not_fence_each_other(self, log: Log) -> None:
        left, right = await log.writer("node-0"), await log.writer("node-1")
        await left.write([Outgoing(RESULTS, 0, b"left")], "engines", {SOURCE: 1})
        await right.write([Outgoing(RESULTS, 1, b"right")], "engines", {TopicPartition(BATCHES, 1): 1})
        await left.write([Outgoing(RESULTS, 0, b"left")], "engines", {SOURCE: 2})
        assert await values(log, RESULTS) == [b"left", b"left"]

    async def test_a_new_transactional_writer_can_use_the_id_of_a_closed_writer(self, log: Log) -> None:
        first = await log.writer("node-0")
        await first.write([Outgoing(RESULTS, 0, b"first")], "engines", {SOURCE: 1})
        await first.close()
        second = await log.writer("node-0")
        await second.write([Outgoing(RESULTS, 0, b"second")], "engines", {SOURCE: 2})
        assert await values(log, RESULTS) == [b"first", b"second"]

    async def test_the_error_for_a_missing_topic_names_the_topic(self, log: Log) -> None:
        for work in (log.ends("nowhere"), log.beginnings("nowhere"), log.produce(Outgoing("nowhere", 0, b"x"))):
            with pytest.raises(LogUnavailable, match="nowhere"):
                await work
        with pytest.raises(LogUnavailable, match="nowhere"):
            [r async for r in log.read("nowhere", 0, 0, 1)]

    async def test_the_error_for_a_missing_partition_names_the_topic(self, log: Log) -> None:
        with pytest.raises(LogUnavailable, match="frames"):
            await log.produce(Outgoing(FRAMES, PARTITIONS, b"x"))
        with pytest.raises(LogUnavailable, match="frames"):
            [r async for r in log.read(FRAMES, PARTITIONS, 0, 1)]

    async def test_a_writer_refuses_a_missing_partition_and_writes_nothing(self, log: Log) -> None:
        writer = await log.writer("node-0")
        with pytest.raises(LogUnavailable, match="results"):
            await writer.write(
                [Outgoing(RESULTS, 0, b"x"), Outgoing(RESULTS, PARTITIONS, b"y")], "engines", {SOURCE: 1}
            )
        await writer.close()
        assert await values(log, RESULTS) == []
        assert await log.committed("engines", SOURCE) is None

    async def test_a_log_may_be_closed_twice(self, log: Log) -> None:
        await log.produce(Outgoing(FRAMES, 0, b"x"))
        await log.writer("node-0")
        await log.close()
        await log.close()


class TestMemoryLog(LogContract):
    @pytest.fixture
    def log(self) -> Log:
        return MemoryLog(PARTITIONS)

    async def abort_one(self, log: Log, topic: str) -> None:
        """Do nothing: a failed transaction never reaches this log."""


@pytest.mark.kafka
class TestKafkaLog(LogContract):
    @pytest.fixture
    def settings(self, kafka: str, prefix: str) -> KafkaSettings:
        return KafkaSettings(bootstrap=kafka, prefix=prefix)

    @pytest.fixture
    async def log(self, settings: KafkaSettings) -> AsyncIterator[Log]:
        complaints: list[str] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(str(context)))
        await topicadmin.create(settings, PARTITIONS)
        async with KafkaLog(settings, "contract") as log:
            yield log
        await topicadmin.remove(settings, settings.prefix)
        del log
        gc.collect()  # asyncio reports an unretrieved exception when its future is collected
        assert complaints == []

    async def abort_one(self, log: Log, topic: str) -> None:
        assert isinstance(log, KafkaLog)
        producer = clients.producer(log.settings, "aborter", transactional_id=log.settings.group("aborter"))
        await producer.start()
        await producer.begin_transaction()
        await producer.send_and_wait(log.settings.topic(topic), b"aborted", partition=0)
        await producer.abort_transaction()
        await producer.stop()

    async def test_a_read_during_an_open_transaction_returns_only_earlier_records_and_does_not_wait_for_its_end(
        self, log: Log
    ) -> None:
        assert isinstance(log, KafkaLog)
        stuck = clients.producer(log.settings, "stuck", transactional_id=log.settings.group("node-0"))
        await stuck.start()
        await log.produce(Outgoing(RESULTS, 0, b"before"))
        await stuck.begin_transaction()
        await stuck.send_and_wait(log.settings.topic(RESULTS), b"open", partition=0)
        await log.produce(Outgoing(RESULTS, 0, b"after"))
        assert await values(log, RESULTS) == [b"before"]
        settled = asyncio.create_task(log.settled_ends(RESULTS, [0]))
        assert await log.ends(RESULTS) == {0: 1, 1: 0}
        assert not settled.done()
        await log.writer("node-0")  # aborts the open transaction of this id
        assert await values(log, RESULTS) == [b"before", b"after"]
        assert (await settled)[0] >= 3
        await stuck.stop()

    async def test_a_cancelled_write_is_aborted_when_its_writer_is_closed(self, log: Log) -> None:
        writer = await log.writer("node-0")
        write = asyncio.create_task(writer.write(numbered(50, RESULTS), "engines", {SOURCE: 1}))
        await asyncio.sleep(0)
        write.cancel()
        with pytest.raises(asyncio.CancelledError):
            await write
        await writer.close()
        await log.produce(Outgoing(RESULTS, 0, b"after"))
        assert (await values(log, RESULTS))[-1:] == [b"after"]
        assert await log.committed("engines", SOURCE) is None

    async def test_partitions_that_are_added_later_are_visible_to_an_open_log(
        self, log: Log, settings: KafkaSettings
    ) -> None:
        await log.produce(Outgoing(FRAMES, 0, b"x"))
        assert await log.ends(FRAMES) == {0: 1, 1: 0}
        await topicadmin.grow(settings, PARTITIONS + 1)
        assert await log.produce(Outgoing(FRAMES, PARTITIONS, b"y")) == Position(PARTITIONS, 0)
        assert await log.ends(FRAMES) == {0: 1, 1: 0, 2: 1}


@pytest.mark.kafka
async def test_a_log_survives_the_kill_and_restart_of_its_broker(own_broker: Broker, prefix: str) -> None:
    """While the broker is down, writes fail within the timeout.

    After the broker's restart, the same log reads all records.

    A coordinator that is still loading answers without offsets; the log must not read this answer as a missing
    commit.
    """
    settings = KafkaSettings(bootstrap=own_broker.bootstrap, prefix=prefix)
    await topicadmin.create(settings, PARTITIONS)
    log, hasty = KafkaLog(settings, "contract"), KafkaLog(settings, "hasty", timeout_s=1.0)
    await (await log.writer("node-0")).write(numbered(2, RESULTS), "engines", {SOURCE: 7})
    await hasty.produce(Outgoing(FRAMES, 0, b"x"))
    writer = await hasty.writer("node-1")
    assert await values(log, RESULTS) == [b"0", b"1"], "the idle reader is kept and must survive the restart"
    own_broker.kill()
    with pytest.raises(LogUnavailable):
        await hasty.produce(Outgoing(FRAMES, 0, b"y"))
    with pytest.raises(LogUnavailable):
        await writer.write(numbered(2, RESULTS), "engines", {SOURCE: 8})
    with pytest.raises(LogUnavailable):
        await hasty.committed("engines", SOURCE)
    await hasty.close()
    await asyncio.to_thread(own_broker.start)
    assert await log.committed("engines", SOURCE) == 7
    assert await values(log, RESULTS) == [b"0", b"1"]
    await log.close()


async def test_without_a_broker_every_call_of_a_log_fails_and_leaves_no_connection_open() -> None:
    log = KafkaLog(KafkaSettings(bootstrap="127.0.0.1:1"), "contract")
    calls: list[Callable[[], object]] = [
        lambda: log.produce(Outgoing(FRAMES, 0, b"x")),
        lambda: log.ends(FRAMES),
        log.partitions,
        lambda: log.committed("engines", SOURCE),
        lambda: log.writer("node-0"),
        lambda: read_all(log, FRAMES),
    ]
    for call in calls:
        with pytest.raises(LogUnavailable, match=r"127\.0\.0\.1:1"):
            await call()  # type: ignore[misc]
    await log.close()
    gc.collect()
