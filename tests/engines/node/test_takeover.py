"""Taking a partition over, its jobs in order, and when they are written: on a log in memory."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from engines.node.partition import GROUP, MAX_COMMIT_JOBS, OwnedPartition
from engines.node.takeover import LETTERS_TAIL, take_over
from ingest.contract import headers as h
from ingest.contract.codec import decode, encode
from ingest.contract.identity import LATE, LIVE, FrameId
from ingest.contract.records import Batch, BatchItem, FrameRef, Result
from ingest.contract.topics import BATCHES, BATCHES_LATE, DEADLETTER, RESULTS
from ingest.deadletter import parked
from ingest.exceptions import Fenced, LogUnavailable
from ingest.kafka.log import LogRecord, Outgoing, TopicPartition
from ingest.kafka.memorylog import MemoryLog

PIPELINES = frozenset({"p"})
LIVE_SLOT, LATE_SLOT = TopicPartition(BATCHES, 1), TopicPartition(BATCHES_LATE, 1)


def items(*seqs: int, lane: str = LIVE) -> tuple[BatchItem, ...]:
    return tuple(
        BatchItem(
            camera="gate",
            epoch=1,
            seq=seq,
            lane=lane,
            captured_ns=0,
            width=8,
            height=8,
            source=FrameRef("frames", 1, seq),
            pipelines=("p",),
            outcome="empty",
        )
        for seq in seqs
    )


async def put(log: MemoryLog, *seqs: int, tp: TopicPartition = LIVE_SLOT, pipeline: str = "p") -> LogRecord:
    lane = LATE if tp.topic == BATCHES_LATE else LIVE
    batch = Batch(pipeline=pipeline, height=1, width=1, channels=3, items=items(*seqs, lane=lane), pixels=b"")
    headers = h.frame_headers([item.id for item in batch.items], lane, pipeline=pipeline)
    at = await log.produce(Outgoing(tp.topic, tp.partition, encode(batch), headers=headers))
    return LogRecord(tp.topic, tp.partition, at.offset, None, encode(batch), headers)


async def read_from(log: MemoryLog, owned: OwnedPartition) -> list[LogRecord]:
    end = (await log.ends(owned.tp.topic))[owned.tp.partition]
    return [r async for r in log.read(owned.tp.topic, owned.tp.partition, owned.position, end)]


async def written(log: MemoryLog) -> list[int]:
    end = (await log.ends(RESULTS))[1]
    return [decode(Result, r.value).seq async for r in log.read(RESULTS, 1, 0, end)]


async def one(log: MemoryLog, tp: TopicPartition = LIVE_SLOT) -> OwnedPartition:
    (owned,) = await take_over(log, [tp])
    return owned


async def work(owned: OwnedPartition, records: Sequence[LogRecord]) -> None:
    for record in records:
        owned.take(record, PIPELINES)
    while owned.due(0.0, 0.0) is not None:
        await owned.write(lambda: 5)


async def test_a_new_owner_goes_on_where_the_old_one_was() -> None:
    log = MemoryLog(2)
    records = [await put(log, n) for n in range(4)]
    first = await one(log)
    await work(first, records[:2])
    second = await one(log)
    assert second.position == 2
    await work(second, await read_from(log, second))
    assert await written(log) == [0, 1, 2, 3]
    with pytest.raises(Fenced):
        await work(first, records[2:])
    assert await written(log) == [0, 1, 2, 3]


async def test_what_was_classified_is_not_classified_again_although_prepare_repeats_it() -> None:
    log = MemoryLog(2)
    await work(await one(log), [await put(log, 0, 1), await put(log, 2)])
    await put(log, 1, 2, 3)  # prepare was killed before it had committed
    owned = await one(log)
    await work(owned, await read_from(log, owned))
    assert await written(log) == [0, 1, 2, 3]
    assert await log.committed(GROUP, LIVE_SLOT) == 3


async def test_a_dead_letter_is_an_end_too_of_its_own_slot_only() -> None:
    log = MemoryLog(2)
    letter = await put(log, 7)
    await log.produce(parked(letter, "engine", ValueError("bad"), "p"))
    opened = await take_over(log, [LIVE_SLOT, LATE_SLOT])
    for owned in opened:
        await work(owned, [await put(log, 7, tp=owned.tp)])
    ends = [r async for r in log.read(RESULTS, 1, 0, (await log.ends(RESULTS))[1])]
    assert [decode(Result, r.value).lane for r in ends] == [LATE]


async def test_lanes_have_marks_of_their_own() -> None:
    log = MemoryLog(2)
    await work(await one(log), [await put(log, 5)])
    late = await one(log, LATE_SLOT)
    await work(late, [await put(log, 5, tp=LATE_SLOT)])
    assert await written(log) == [5, 5]


async def test_the_tail_of_dead_letters_is_read_once_for_all_partitions() -> None:
    log = MemoryLog(2)
    for seq in range(LETTERS_TAIL + 5):
        await log.produce(parked(await put(log, seq), "engine", ValueError("bad"), "p"))
    reads: list[tuple[str, int]] = []
    plain = log.read

    def counted(topic: str, partition: int, start: int, stop: int) -> object:
        reads.append((topic, stop - start))
        return plain(topic, partition, start, stop)

    log.read = counted  # type: ignore[method-assign, assignment]
    await take_over(log, [TopicPartition(t, p) for t in (BATCHES, BATCHES_LATE) for p in range(2)])
    assert [size for topic, size in reads if topic == DEADLETTER] == [LETTERS_TAIL]
    assert sum(topic == RESULTS for topic, _ in reads) == 2


async def test_batches_that_retention_took_are_passed_over() -> None:
    log = MemoryLog(2)
    await work(await one(log), [await put(log, 0)])
    for n in range(1, 5):
        await put(log, n)
    log.forget(LIVE_SLOT, 3)
    assert (await one(log)).position == 3


async def test_a_takeover_that_fails_leaves_no_writer_open() -> None:
    log, closed = MemoryLog(2), []

    class Writer:
        async def write(self, *_: object) -> None: ...

        async def close(self) -> None:
            closed.append(self)

    async def writer(_: str) -> Writer:
        return Writer()

    async def committed(*_: object) -> int:
        raise LogUnavailable("gone")

    log.writer, log.committed = writer, committed  # type: ignore[method-assign, assignment]
    with pytest.raises(LogUnavailable):
        await take_over(log, [LIVE_SLOT, LATE_SLOT])
    assert len(closed) == 2


async def test_jobs_are_written_in_the_order_of_their_offsets_whatever_order_they_settle_in() -> None:
    log = MemoryLog(2)
    owned = await one(log)
    jobs = [owned.take(await put(log, n), PIPELINES) for n in range(3)]
    jobs[0].tasks[0] = part = Unsettled()
    assert owned.due(0.0, 0.0) is None
    part.settled = True
    assert owned.due(0.0, 0.0) == 0.0
    assert await owned.write(lambda: 5) == 3
    assert await written(log) == [0, 1, 2]
    assert (owned.in_flight, owned.in_flight_bytes) == (0, 0)


async def test_settled_jobs_wait_for_company_only_while_more_is_on_its_way() -> None:
    log = MemoryLog(2)
    owned = await one(log)
    owned.take(await put(log, 0), PIPELINES)
    assert owned.due(10.0, 0.2) == 10.0
    behind = owned.take(await put(log, 1), PIPELINES)
    behind.tasks[0] = Unsettled()
    assert owned.due(10.0, 0.2) == 10.2
    assert owned.due(10.1, 0.2) == 10.2  # since it was settled, not since it was asked
    behind.tasks[0].settled = True
    assert owned.due(10.1, 0.2) == 10.1


async def test_a_full_transaction_waits_for_nobody() -> None:
    log = MemoryLog(2)
    owned = await one(log)
    for n in range(MAX_COMMIT_JOBS):
        owned.take(await put(log, n), PIPELINES)
    last = owned.take(await put(log, MAX_COMMIT_JOBS), PIPELINES)
    last.tasks[0] = Unsettled()
    assert owned.due(1.0, 9.0) == 1.0
    assert await owned.write(lambda: 5) == MAX_COMMIT_JOBS


class Unsettled:
    """A part that settles when the test says so."""

    settled = False
    failed = None
    found: list[object] = []
    pictures = (0,)


async def test_a_mark_is_not_raised_by_another_pipeline() -> None:
    log = MemoryLog(2)
    await work(await one(log), [await put(log, 4, pipeline="none")])
    owned = await one(log)
    job = owned.take(await put(log, 4), PIPELINES)
    assert [item.id for item in job.items] == [FrameId("gate", 1, 4)]
