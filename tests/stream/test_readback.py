"""Tests of reading back: every history is long enough, each record is read once, and the whole log is never read."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator

import pytest

from ingest.contract.topics import RESULTS
from ingest.kafka import topicadmin
from ingest.kafka.kafkalog import KafkaLog
from ingest.kafka.log import Log, LogRecord, Outgoing, TopicPartition
from ingest.kafka.memorylog import MemoryLog
from ingest.kafka.settings import KafkaSettings
from ingest.runtime.clock import ManualClock
from stream import readback
from stream.readback import HistoryPoint, offsets_for, tail, written_since

PARTITION = TopicPartition(RESULTS, 0)
WANTED_S = 10.0


def history_point(record: LogRecord) -> HistoryPoint | None:
    """Parse ``key epoch seconds``; skip any other record."""
    try:
        key, epoch, at_s = record.value.decode().split()
    except ValueError:
        return None
    return HistoryPoint(key, int(epoch), round(float(at_s) * 1e9), WANTED_S)


class ReadCountingLog(MemoryLog):
    """A log that records the offsets that were read."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        super().__init__(partitions=1, clock=self.clock)
        self.read_offsets: list[int] = []

    async def read(self, topic: str, partition: int, start: int, stop: int) -> AsyncGenerator[LogRecord, None]:
        async for record in super().read(topic, partition, start, stop):
            self.read_offsets.append(record.offset)
            yield record

    async def write(self, *values: str, every_s: float = 1.0) -> None:
        for value in values:
            self.clock.advance(every_s)
            await self.produce(Outgoing(RESULTS, 0, value.encode()))


@pytest.fixture
def log() -> ReadCountingLog:
    return ReadCountingLog()


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readback, "_FIRST_CHUNK", 4)
    monkeypatch.setattr(readback, "_LAST_CHUNK", 16)
    monkeypatch.setattr(readback, "_MAX_BEYOND", 8)


async def found(log: Log, seconds: float = WANTED_S, position: int | None = None) -> list[str]:
    stop = (await log.ends(RESULTS))[0] if position is None else position
    return [record.value.decode() for record in await tail(log, PARTITION, stop, history_point, seconds)]


def history(key: str, first_s: int, last_s: int, epoch: int = 1) -> list[str]:
    return [f"{key} {epoch} {at_s}" for at_s in range(first_s, last_s + 1)]


async def test_state_restoration_reads_the_records_of_a_given_period_before_a_position_in_order(
    log: ReadCountingLog,
) -> None:
    await log.write(*history("a", 1, 100))
    assert await found(log) == history("a", 90, 100)
    assert await found(log, position=50) == history("a", 40, 50)
    assert await found(log, position=3) == history("a", 1, 3)
    assert await found(log, position=0) == []


@pytest.mark.usefixtures("small_steps")
async def test_state_restoration_reads_each_record_once_and_only_the_end_of_a_long_log(log: ReadCountingLog) -> None:
    await log.write(*history("a", 1, 1000))
    assert await found(log) == history("a", 990, 1000)
    assert len(log.read_offsets) == len(set(log.read_offsets)) <= 12


@pytest.mark.usefixtures("small_steps")
async def test_state_restoration_returns_neither_deleted_nor_unparseable_records(log: ReadCountingLog) -> None:
    mixed = [value for at_s in range(1, 41) for value in ("no place", f"a 1 {at_s}")]
    await log.write(*mixed, every_s=0.5)
    log.forget(PARTITION, 2 * 35)
    assert await found(log) == history("a", 36, 40)


@pytest.mark.usefixtures("small_steps")
async def test_state_restoration_measures_its_period_by_the_camera_clock_and_not_by_the_broker_clock(
    log: ReadCountingLog,
) -> None:
    """Late frames come ten times as fast as they were captured.

    During an outage, no record is written for minutes.
    """
    await log.write(*history("late", 1, 100), every_s=0.1)
    assert await found(log) == history("late", 90, 100)
    log.clock.advance(600.0)
    await log.write(*history("late", 101, 103), every_s=0.1)
    assert await found(log) == history("late", 93, 103)


@pytest.mark.usefixtures("small_steps")
async def test_state_restoration_finds_all_records_of_a_rarely_writing_camera_beside_a_busy_one(
    log: ReadCountingLog,
) -> None:
    await log.write("rare 1 1", *history("a", 2, 7), "rare 1 8", *history("a", 9, 16))
    assert await found(log, seconds=9.0) == ["rare 1 1", *history("a", 6, 7), "rare 1 8", *history("a", 9, 16)]


@pytest.mark.usefixtures("small_steps")
async def test_a_longer_search_for_the_records_of_one_camera_does_not_search_those_of_other_cameras(
    log: ReadCountingLog,
) -> None:
    """Records of other keys met beyond the given seconds are returned, but their histories are not searched for."""
    await log.write(*history("b", 1, 50), *(f"a 1 {2 * n}" for n in range(1, 8)))
    assert await found(log, seconds=5.0) == [*history("b", 46, 50), *(f"a 1 {2 * n}" for n in range(2, 8))]
    assert len(log.read_offsets) == 12


@pytest.mark.usefixtures("small_steps")
async def test_the_restored_records_of_a_stream_begin_with_its_newest_epoch(log: ReadCountingLog) -> None:
    await log.write(*history("a", 1, 50), *history("a", 51, 53, epoch=2))
    assert await found(log) == history("a", 51, 53, epoch=2)
    await log.write("a 1 50")  # a repeat of the older epoch starts no new history
    assert await found(log) == [*history("a", 51, 53, epoch=2), "a 1 50"]


@pytest.mark.usefixtures("small_steps")
async def test_the_records_of_a_new_camera_are_not_searched_for_in_the_whole_log(log: ReadCountingLog) -> None:
    await log.write(*history("a", 1, 511), *history("new", 512, 513), *history("a", 514, 520))
    assert await found(log) == [*history("a", 510, 511), *history("new", 512, 513), *history("a", 514, 520)]
    assert len(log.read_offsets) < 60


async def test_state_restoration_reads_a_bounded_number_of_offsets_that_grows_with_the_restored_period(
    log: ReadCountingLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert offsets_for(0.0) == offsets_for(120.0) < offsets_for(660.0) < offsets_for(1e9) == offsets_for(float("inf"))
    monkeypatch.setattr(readback, "_MIN_OFFSETS", 5)
    monkeypatch.setattr(readback, "_OFFSETS_PER_S", 0.7)
    await log.write(*history("a", 1, 100))
    assert await found(log) == history("a", 94, 100)


async def test_written_since_returns_all_records_written_from_a_given_time_on(log: ReadCountingLog) -> None:
    await log.write(*history("a", 1, 100))
    since_ms = log.clock.now_ns() // 1_000_000 - 5_000
    assert [r.value.decode() for r in await written_since(log, PARTITION, since_ms)] == history("a", 95, 100)
    assert await written_since(log, PARTITION, since_ms + 60_000) == []


@pytest.fixture
async def kafka_log(kafka: str, prefix: str) -> AsyncIterator[KafkaLog]:
    settings = KafkaSettings(bootstrap=kafka, prefix=prefix)
    await topicadmin.create(settings, 1)
    async with KafkaLog(settings, "test") as log:
        yield log
    await topicadmin.remove(settings, prefix)


@pytest.mark.kafka
@pytest.mark.usefixtures("small_steps")
async def test_state_restoration_reads_past_transaction_markers(kafka_log: KafkaLog) -> None:
    """Each record is written in its own transaction, so that every second offset is a marker, including the last
    offset."""
    writer = await kafka_log.writer("test")
    for value in history("a", 1, 30):
        await writer.write([Outgoing(RESULTS, 0, value.encode())], "test", {})
    await writer.close()
    assert (await kafka_log.ends(RESULTS))[0] == 60
    assert await found(kafka_log) == history("a", 20, 30)
    assert len(await written_since(kafka_log, PARTITION, 0)) == 30
