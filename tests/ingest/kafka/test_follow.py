"""Tests of following a topic, on the log in memory."""

from __future__ import annotations

from ingest.contract.topics import RESULTS
from ingest.kafka.follow import Follower
from ingest.kafka.log import Outgoing, TopicPartition
from ingest.kafka.memorylog import MemoryLog


async def write(log: MemoryLog, partition: int, *values: bytes) -> None:
    for value in values:
        await log.produce(Outgoing(RESULTS, partition, value))


async def values(follower: Follower) -> list[bytes]:
    return [record.value async for record in follower.new()]


async def test_a_topic_follower_yields_each_new_record_once() -> None:
    log = MemoryLog(2)
    await write(log, 0, b"before")
    follower = Follower(log, RESULTS)
    assert await values(follower) == []
    await write(log, 0, b"a", b"b")
    await write(log, 1, b"c")
    assert await values(follower) == [b"a", b"b", b"c"]
    await write(log, 1, b"d")
    assert await values(follower) == [b"d"]


async def test_a_topic_follower_from_the_start_yields_the_records_that_retention_has_left() -> None:
    log = MemoryLog(1)
    await write(log, 0, b"deleted", b"left")
    log.forget(TopicPartition(RESULTS, 0), 1)
    assert await values(Follower(log, RESULTS, from_start=True)) == [b"left"]


async def test_a_topic_follower_with_backlog_n_begins_n_records_before_the_end_of_each_partition() -> None:
    log = MemoryLog(2)
    await write(log, 0, b"deleted", b"early", b"late")
    await write(log, 1, b"other")
    log.forget(TopicPartition(RESULTS, 0), 1)
    assert await values(Follower(log, RESULTS, backlog=1)) == [b"late", b"other"]
    assert await values(Follower(log, RESULTS, backlog=9)) == [b"early", b"late", b"other"]


async def test_records_written_between_the_start_and_the_first_read_of_a_topic_follower_are_not_lost() -> None:
    log = MemoryLog(1)
    follower = Follower(log, RESULTS)
    await follower.begin()
    await write(log, 0, b"a")
    assert await values(follower) == [b"a"]


async def test_a_topic_follower_of_one_partition_skips_records_of_other_partitions() -> None:
    log = MemoryLog(2)
    follower = Follower(log, RESULTS, partition=1, from_start=True)
    await write(log, 0, b"other")
    await write(log, 1, b"own")
    assert await values(follower) == [b"own"]


async def test_a_topic_follower_reads_an_added_partition_and_a_recreated_topic_from_the_first_record() -> None:
    log = MemoryLog(1)
    await write(log, 0, b"old", b"older")
    follower = Follower(log, RESULTS)
    assert await values(follower) == []
    log.set_partitions(RESULTS, 2)
    await write(log, 1, b"added")
    log.create_again(TopicPartition(RESULTS, 0))
    await write(log, 0, b"again")
    assert await values(follower) == [b"again", b"added"]
