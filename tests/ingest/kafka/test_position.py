"""Tests of start positions: after retention, and after a topic was created again."""

from __future__ import annotations

from structlog.testing import capture_logs

from ingest.contract.codec import decode
from ingest.contract.groups import ENGINES
from ingest.contract.records import Heartbeat
from ingest.contract.topics import FRAMES, STATUS
from ingest.kafka.log import Outgoing, TopicPartition
from ingest.kafka.memorylog import MemoryLog
from ingest.kafka.position import StartPosition, commit, expired_between, start_position

GROUP = "prepare-live"
TP = TopicPartition(FRAMES, 1)


async def filled(count: int, committed: int | None) -> MemoryLog:
    log = MemoryLog(2)
    for _ in range(count):
        await log.produce(Outgoing(*TP, b"x"))
    if committed is not None:
        await commit(log, GROUP, TP, committed)
    return log


async def reported(log: MemoryLog) -> list[tuple[str, int, int]]:
    beats = [decode(Heartbeat, r.value) async for r in log.read(STATUS, 0, 0, (await log.ends(STATUS))[0])]
    return [(gap.group, gap.first, gap.last) for beat in beats for gap in beat.expired_unread]


async def test_a_consumer_group_continues_at_its_commit_and_a_new_group_begins_at_the_beginning() -> None:
    assert await start_position(await filled(5, 5), GROUP, TP) == StartPosition(5)
    log = await filled(5, None)
    log.forget(TP, 2)
    assert await start_position(log, GROUP, TP) == StartPosition(2)
    assert await reported(log) == []


async def test_groups_that_process_the_same_topic_start_at_the_highest_offset_that_any_of_them_committed() -> None:
    log = await filled(9, 3)
    await commit(log, ENGINES, TP, 7)
    assert [await start_position(log, group, TP) for group in (GROUP, ENGINES)] == [StartPosition(7)] * 2


async def test_the_offsets_of_all_groups_are_reset_if_a_topic_was_created_again() -> None:
    log = await filled(4, 3)
    await commit(log, ENGINES, TP, 9)  # from a deleted topic
    assert await start_position(log, GROUP, TP) == StartPosition(0, recreated=True)
    assert [await log.committed(group, TP) for group in (GROUP, ENGINES)] == [0, 0]


async def test_records_that_expired_unread_are_counted_logged_and_reported() -> None:
    log = await filled(9, 2)
    log.forget(TP, 6)
    with capture_logs() as logs:
        assert await start_position(log, GROUP, TP) == StartPosition(6, expired_unread=4)
    assert [(line["event"], line["records"]) for line in logs] == [("records_expired_unread", 4)]
    assert await reported(log) == [(GROUP, 2, 5)]


async def test_a_gap_of_deleted_records_is_reported_and_a_gap_of_transaction_markers_is_not() -> None:
    log = await filled(9, None)
    assert await expired_between(log, GROUP, TP, 3, 5) == 0
    log.forget(TP, 6)
    assert await expired_between(log, GROUP, TP, 3, 6) == 3
    assert await reported(log) == [(GROUP, 3, 5)]


async def test_a_consumer_group_reads_a_recreated_topic_from_its_beginning() -> None:
    log = await filled(9, 8)
    log.create_again(TP)
    await log.produce(Outgoing(*TP, b"new"))
    with capture_logs() as logs:
        assert await start_position(log, GROUP, TP) == StartPosition(0, recreated=True)
    assert [line["event"] for line in logs] == ["topic_created_again"]
    assert await log.committed(GROUP, TP) == 0
    assert await reported(log) == []
