"""Tests of the scheduler: order, turns and merging of batches."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engines.node.jobs import HighWaterMarks, Job, accept
from engines.node.scheduler import Scheduler
from ingest.contract.topics import BATCHES, BATCHES_LATE
from ingest.kafka.log import TopicPartition
from tests.engines.node.batches import item, record


class TestScheduler:
    def job(self, tp: TopicPartition, offset: int, rows: int = 1, pipeline: str = "regions") -> Job:
        return accept(
            record([item(offset, camera=f"c{tp.partition}", rows=rows)], offset=offset, pipeline=pipeline),
            HighWaterMarks(),
            frozenset({"regions", "other"}),
        )

    @given(
        sizes=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 5), st.booleans()), min_size=1, max_size=30),
        limit=st.integers(1, 12),
    )
    def test_each_job_is_scheduled_once_in_partition_order_and_within_the_row_limit(
        self, sizes: list[tuple[int, int, bool]], limit: int
    ) -> None:
        scheduler, wanted = Scheduler(lambda _: limit), {}
        for offset, (partition, rows, late) in enumerate(sizes):
            tp = TopicPartition(BATCHES_LATE if late else BATCHES, partition)
            scheduler.add(tp, self.job(tp, offset, rows))
            wanted.setdefault(tp, []).append(offset)
        assert scheduler.waiting == sum(rows for _, rows, _ in sizes)
        taken: dict[int, int] = {}
        while merged := scheduler.next():
            assert merged.rows <= limit or len(merged.jobs) == 1
            for job in merged.jobs:
                taken[job.record.offset] = len(taken)
        assert sorted(taken) == list(range(len(sizes)))
        for offsets in wanted.values():
            order = [taken[o] for o in offsets]
            assert order == sorted(order)

    def test_partitions_take_turns_even_if_one_has_more_jobs(self) -> None:
        scheduler, busy, calm = Scheduler(lambda _: 2), TopicPartition(BATCHES, 0), TopicPartition(BATCHES, 1)
        for offset in range(8):
            scheduler.add(busy, self.job(busy, offset))
        for offset in range(100, 102):
            scheduler.add(calm, self.job(calm, offset))
        order = [job.record.offset for _ in range(3) for job in scheduler.next().jobs]  # type: ignore[union-attr]
        assert order == [0, 1, 100, 101, 2, 3]

    def test_a_partition_whose_model_is_loading_waits_while_others_are_classified(self) -> None:
        loading = {"other"}
        scheduler = Scheduler(lambda _: 8, loading.__contains__)
        new, old = TopicPartition(BATCHES, 0), TopicPartition(BATCHES, 1)
        scheduler.add(new, self.job(new, 0, rows=3, pipeline="other"))
        scheduler.add(new, self.job(new, 1, rows=2))
        scheduler.add(old, self.job(old, 2))
        assert scheduler.blocked() == {new}
        assert (scheduler.waiting, scheduler.waiting_in(BATCHES)) == (6, 1)
        merged = scheduler.next()
        assert merged is not None
        assert [job.record.offset for job in merged.jobs] == [2]
        assert scheduler.next() is None
        loading.clear()
        assert scheduler.blocked() == set()
        assert scheduler.waiting_in(BATCHES) == 5
        order = [job.record.offset for _ in range(2) for job in scheduler.next().jobs]  # type: ignore[union-attr]
        assert order == [0, 1]

    def test_late_jobs_are_never_merged_into_a_live_batch(self) -> None:
        scheduler, late, live = Scheduler(lambda _: 8), TopicPartition(BATCHES_LATE, 0), TopicPartition(BATCHES, 1)
        scheduler.add(late, self.job(late, 0))
        scheduler.add(live, self.job(live, 1))
        assert [j.record.offset for j in scheduler.next().jobs] == [1]  # type: ignore[union-attr]

    def test_live_jobs_are_scheduled_before_late_jobs(self) -> None:
        scheduler = Scheduler(lambda _: 1)
        late, live = TopicPartition(BATCHES_LATE, 0), TopicPartition(BATCHES, 1)
        scheduler.add(late, self.job(late, 0))
        scheduler.add(live, self.job(live, 1))
        assert (scheduler.waiting_in(BATCHES), scheduler.waiting_in(BATCHES_LATE)) == (1, 1)
        assert [scheduler.next().jobs[0].record.offset for _ in range(2)] == [1, 0]  # type: ignore[union-attr]
        assert scheduler.waiting == 0

    def test_jobs_of_two_pipelines_are_never_merged_and_dropped_jobs_are_not_scheduled(self) -> None:
        scheduler, tp = Scheduler(lambda _: 8), TopicPartition(BATCHES, 0)
        scheduler.add(tp, self.job(tp, 0))
        scheduler.add(tp, self.job(tp, 1, pipeline="other"))
        merged = scheduler.next()
        assert merged is not None
        assert [j.record.offset for j in merged.jobs] == [0]
        scheduler.drop(tp)
        assert scheduler.next() is None
