"""Tests of partition take-over, and of the order and time in which jobs are written, on an in-memory log."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

import pytest

from engines.node.takeover import DEAD_LETTERS_TAIL, MAX_COMMIT_JOBS, RESULTS_TAIL, OwnedPartition, take_over
from ingest.contract import headers as h
from ingest.contract.codec import decode, encode
from ingest.contract.groups import ENGINES
from ingest.contract.identity import LATE, LIVE, FrameId
from ingest.contract.records import Batch, BatchItem, FrameRef, Result
from ingest.contract.topics import BATCHES, BATCHES_LATE, DEADLETTER, RESULTS
from ingest.deadletter import parked
from ingest.exceptions import Fenced, LogUnavailable
from ingest.kafka.log import LogRecord, Outgoing, TopicPartition, Writer
from ingest.kafka.memorylog import MemoryLog
from tests.engines.node import batches

PIPELINES = frozenset({"p"})
LIVE_TP, LATE_TP = TopicPartition(BATCHES, 1), TopicPartition(BATCHES_LATE, 1)


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


async def put(log: MemoryLog, *seqs: int, tp: TopicPartition = LIVE_TP, pipeline: str = "p") -> LogRecord:
    lane = LATE if tp.topic == BATCHES_LATE else LIVE
    batch = Batch(pipeline=pipeline, height=1, width=1, channels=3, items=items(*seqs, lane=lane), pixels=b"")
    headers = h.frame_headers([item.id for item in batch.items], lane, pipeline=pipeline)
    at = await log.produce(Outgoing(tp.topic, tp.partition, encode(batch), headers=headers))
    return LogRecord(tp.topic, tp.partition, at.offset, None, encode(batch), headers)


async def read_from(log: MemoryLog, owned: OwnedPartition) -> list[LogRecord]:
    end = (await log.ends(owned.tp.topic))[owned.tp.partition]
    return [r async for r in log.read(owned.tp.topic, owned.tp.partition, owned.start.offset, end)]


async def written(log: MemoryLog) -> list[int]:
    end = (await log.ends(RESULTS))[1]
    return [decode(Result, r.value).seq async for r in log.read(RESULTS, 1, 0, end)]


async def one(log: MemoryLog, tp: TopicPartition = LIVE_TP) -> OwnedPartition:
    (owned,) = await take_over(log, [tp])
    return owned


async def work(owned: OwnedPartition, records: Sequence[LogRecord]) -> None:
    for record in records:
        owned.take(record, PIPELINES)
    while (due_s := owned.due(0.0, 0.0)) is not None:
        await owned.write(lambda: 5, due_s)


async def test_a_new_partition_owner_fences_the_old_owner_and_continues_at_its_committed_offset() -> None:
    log = MemoryLog(2)
    records = [await put(log, n) for n in range(4)]
    first = await one(log)
    await work(first, records[:2])
    second = await one(log)
    assert second.start.offset == 2
    await work(second, await read_from(log, second))
    assert await written(log) == [0, 1, 2, 3]
    with pytest.raises(Fenced):
        await work(first, records[2:])
    assert await written(log) == [0, 1, 2, 3]


async def test_classified_frames_that_prepare_sends_again_are_not_classified_again() -> None:
    log = MemoryLog(2)
    await work(await one(log), [await put(log, 0, 1), await put(log, 2)])
    await put(log, 1, 2, 3)  # prepare was killed before its commit
    owned = await one(log)
    await work(owned, await read_from(log, owned))
    assert await written(log) == [0, 1, 2, 3]
    assert await log.committed(ENGINES, LIVE_TP) == 3


async def test_a_dead_letter_raises_only_the_high_water_marks_of_its_own_partition_and_lane() -> None:
    log = MemoryLog(2)
    letter = await put(log, 7)
    await log.produce(parked(letter, "engine", ValueError("bad"), "p"))
    opened = await take_over(log, [LIVE_TP, LATE_TP])
    for owned in opened:
        await work(owned, [await put(log, 7, tp=owned.tp)])
    ends = [r async for r in log.read(RESULTS, 1, 0, (await log.ends(RESULTS))[1])]
    assert [decode(Result, r.value).lane for r in ends] == [LATE]


async def test_high_water_marks_of_the_live_lane_do_not_drop_late_frames() -> None:
    log = MemoryLog(2)
    await work(await one(log), [await put(log, 5)])
    late = await one(log, LATE_TP)
    await work(late, [await put(log, 5, tp=LATE_TP)])
    assert await written(log) == [5, 5]


async def test_many_results_of_other_cameras_do_not_displace_the_high_water_marks_of_a_camera() -> None:
    log = MemoryLog(2)
    await work(await one(log), [await put(log, 0)])
    for n in range(RESULTS_TAIL + 1):
        await log.produce(Outgoing(RESULTS, 1, b"", headers=h.frame_headers([FrameId("other", 1, n)], LIVE)))
    await put(log, 0, 1)
    owned = await one(log)
    (job,) = [owned.take(record, PIPELINES) for record in await read_from(log, owned)]
    assert [item.seq for item in job.items] == [1]


async def test_after_a_takeover_an_out_of_order_frame_is_shed_and_a_frame_with_a_dead_letter_is_dropped() -> None:
    log = MemoryLog(2)
    first = await one(log)
    await work(first, [await put(log, 0)])
    await log.produce(parked(await put(log, 2), "engine", ValueError("bad"), "p"))
    await work(first, [await put(log, 3)])
    await put(log, 1, 2, 3)
    job = (await one(log)).take((await read_from(log, await one(log)))[-1], PIPELINES)
    assert [(item.seq, item.reason) for item in job.items] == [(1, "out_of_order")]


class CountedReads(MemoryLog):
    """A log that records the topic and the number of offsets of each read."""

    def __init__(self, partitions: int) -> None:
        super().__init__(partitions)
        self.reads: list[tuple[str, int]] = []

    def read(self, topic: str, partition: int, start: int, stop: int) -> AsyncGenerator[LogRecord, None]:
        self.reads.append((topic, stop - start))
        return super().read(topic, partition, start, stop)


async def test_a_takeover_reads_dead_letters_and_results_once_for_all_partitions() -> None:
    log = CountedReads(2)
    for seq in range(DEAD_LETTERS_TAIL + 5):
        await log.produce(parked(await put(log, seq), "engine", ValueError("bad"), "p"))
    await take_over(log, [TopicPartition(t, p) for t in (BATCHES, BATCHES_LATE) for p in range(2)])
    assert [size for topic, size in log.reads if topic == DEADLETTER] == [DEAD_LETTERS_TAIL]
    assert sum(topic == RESULTS for topic, _ in log.reads) == 2


async def test_a_takeover_skips_batches_that_retention_deleted() -> None:
    log = MemoryLog(2)
    await work(await one(log), [await put(log, 0)])
    for n in range(1, 5):
        await put(log, n)
    log.forget(LIVE_TP, 3)
    assert (await one(log)).start.offset == 3


class NoCommits(MemoryLog):
    """A log whose committed offsets cannot be read. ``NoCommits`` counts the closed writers."""

    closed = 0

    async def writer(self, transactional_id: str) -> Writer:
        log = self

        class CountedWriter:
            async def write(self, *_: object) -> None: ...

            async def close(self) -> None:
                log.closed += 1

        return CountedWriter()

    async def committed(self, group: str, tp: TopicPartition) -> int | None:
        raise LogUnavailable("gone")


async def test_a_failed_takeover_closes_all_opened_writers() -> None:
    log = NoCommits(2)
    with pytest.raises(LogUnavailable):
        await take_over(log, [LIVE_TP, LATE_TP])
    assert log.closed == 2


async def test_results_of_jobs_are_written_in_offset_order_even_if_jobs_finish_in_another_order() -> None:
    log = MemoryLog(2)
    owned = await one(log)
    jobs = [owned.take(await put(log, n), PIPELINES) for n in range(3)]
    jobs[0].tasks[0] = task = Unsettled()
    assert owned.due(0.0, 0.0) is None
    task.settled = True
    assert owned.due(0.0, 0.0) == 0.0
    assert await owned.write(lambda: 5, 0.0) == 3
    assert await written(log) == [0, 1, 2]
    assert (owned.in_flight, owned.in_flight_bytes) == (0, 0)


async def test_finished_jobs_are_written_immediately_if_no_unfinished_job_is_queued_behind_them() -> None:
    log = MemoryLog(2)
    owned = await one(log)
    owned.take(await put(log, 0), PIPELINES)
    assert owned.due(10.0, 0.2) == 10.0
    behind = owned.take(await put(log, 1), PIPELINES)
    behind.tasks[0] = Unsettled()
    assert owned.due(10.0, 0.2) == 10.2
    assert owned.due(10.1, 0.2) == 10.2  # the wait counts from the time at which the job settled, not from this call
    behind.tasks[0].settled = True
    assert owned.due(10.1, 0.2) == 10.1


async def test_a_transaction_with_its_maximum_number_of_jobs_is_written_immediately() -> None:
    log = MemoryLog(2)
    owned = await one(log)
    for n in range(MAX_COMMIT_JOBS):
        owned.take(await put(log, n), PIPELINES)
    last = owned.take(await put(log, MAX_COMMIT_JOBS), PIPELINES)
    last.tasks[0] = Unsettled()
    assert owned.due(1.0, 9.0) == 1.0
    assert await owned.write(lambda: 5, 0.0) == MAX_COMMIT_JOBS


async def test_offsets_are_committed_with_the_first_results_and_then_once_per_quarter_of_a_second() -> None:
    log = MemoryLog(2)
    owned, committed = await one(log), list[int | None]()
    for n, now_s in enumerate((10.0, 10.1, 10.2, 10.25, 10.3)):
        owned.take(await put(log, n), PIPELINES)
        await owned.write(lambda: 5, now_s)
        committed.append(await log.committed(ENGINES, LIVE_TP))
    assert committed == [1, 1, 1, 4, 4]
    assert await written(log) == [0, 1, 2, 3, 4]
    assert owned.uncommitted == 1


async def test_offsets_without_further_results_are_committed_after_a_second_or_at_a_stop() -> None:
    log = MemoryLog(2)
    owned = await one(log)
    for n, now_s in enumerate((10.0, 10.2)):
        owned.take(await put(log, n), PIPELINES)
        await owned.write(lambda: 5, now_s)
    assert await log.committed(ENGINES, LIVE_TP) == 1
    assert owned.due(10.31, 0.0) == 11.2
    assert owned.due(10.31, 0.0, stopping=True) == 10.31
    assert await owned.write(lambda: 5, 11.2) == 0
    assert await log.committed(ENGINES, LIVE_TP) == 2
    assert owned.due(11.3, 0.0) is None
    assert owned.due(11.3, 0.0, stopping=True) is None


async def test_offsets_are_committed_after_four_written_jobs_even_within_a_quarter_of_a_second() -> None:
    log = MemoryLog(2)
    owned, committed = await one(log), list[int | None]()
    for n in range(6):
        owned.take(await put(log, n), PIPELINES)
        await owned.write(lambda: 5, 10.0)
        committed.append(await log.committed(ENGINES, LIVE_TP))
    assert committed == [1, 1, 1, 1, 5, 5]


async def test_the_offset_of_a_batch_is_committed_with_its_dead_letter() -> None:
    log = MemoryLog(2)
    owned = await one(log)
    await work(owned, [await put(log, 0)])
    owned.take(LogRecord(*LIVE_TP, 1, None, b"unreadable"), PIPELINES)
    assert await owned.write(lambda: 5, 0.0) == 1
    assert await log.committed(ENGINES, LIVE_TP) == 2
    owned.take(batches.record([batches.item(7)], offset=2, pipeline="unknown"), PIPELINES)
    assert await owned.write(lambda: 5, 0.0) == 1
    assert await log.committed(ENGINES, LIVE_TP) == 3


async def test_a_new_owner_writes_nothing_for_a_batch_whose_results_are_written_and_whose_offset_is_not() -> None:
    log = MemoryLog(2)
    old = await one(log)
    for n in range(3):
        old.take(await put(log, n), PIPELINES)
        await old.write(lambda: 5, 10.0)
    assert await log.committed(ENGINES, LIVE_TP) == 1
    new = await one(log)
    assert new.start.offset == 1
    repeats = [record async for record in log.read(*LIVE_TP, 1, 3)]
    await work(new, repeats)
    assert await written(log) == [0, 1, 2]
    assert await log.committed(ENGINES, LIVE_TP) == 3


class Unsettled:
    """A task that settles when the test sets ``settled``."""

    settled = False
    error = None
    detections: list[object] = []
    images = (0,)
    model = None


async def test_results_of_another_pipeline_do_not_raise_the_high_water_mark_of_a_pipeline() -> None:
    log = MemoryLog(2)
    await work(await one(log), [await put(log, 4, pipeline="none")])
    owned = await one(log)
    job = owned.take(await put(log, 4), PIPELINES)
    assert [item.id for item in job.items] == [FrameId("gate", 1, 4)]
