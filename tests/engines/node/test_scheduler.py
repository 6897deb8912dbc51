"""Tests of the scheduler: deadlines, merging, loading models and lanes."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from engines.node.jobs import HighWaterMarks, Job, accept
from engines.node.scheduler import Scheduler
from ingest.contract.identity import LATE
from ingest.contract.topics import BATCHES, BATCHES_LATE
from ingest.kafka.log import TopicPartition
from tests.engines.node.batches import LATE_0, LIVE_0, LIVE_1, EvenModels, item, job, offsets, record


class TestScheduler:
    @given(
        sizes=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 5), st.booleans()), min_size=1, max_size=30),
        limit=st.integers(1, 12),
        row_s=st.floats(0.0, 1.0),
    )
    def test_each_job_is_scheduled_once_in_partition_order_and_within_the_row_limit_of_a_batch(
        self, sizes: list[tuple[int, int, bool]], limit: int, row_s: float
    ) -> None:
        scheduler, wanted = Scheduler(EvenModels(limit, row_s)), {}
        for offset, (partition, rows, late) in enumerate(sizes):
            tp = TopicPartition(BATCHES_LATE if late else BATCHES, partition)
            scheduler.add(tp, job(tp, offset, rows), 0)
            wanted.setdefault(tp, []).append(offset)
        assert scheduler.waiting == sum(rows for _, rows, _ in sizes)
        taken: dict[int, int] = {}
        while merged := scheduler.next(0):
            assert merged.rows <= limit or len(merged.jobs) == 1
            for each in merged.jobs:
                taken[each.record.offset] = len(taken)
        assert sorted(taken) == list(range(len(sizes)))
        for expected in wanted.values():
            order = [taken[o] for o in expected]
            assert order == sorted(order)

    def test_the_job_with_the_earliest_deadline_of_all_partitions_goes_first(self) -> None:
        scheduler = Scheduler(EvenModels(2))
        for tp, offset, captured_ns in ((LIVE_0, 0, 5), (LIVE_0, 1, 6), (LIVE_1, 10, 3), (LIVE_1, 11, 7)):
            scheduler.add(tp, job(tp, offset, captured_ns=captured_ns), 8)
        assert [offsets(scheduler.next(8)) for _ in range(3)] == [[10, 0], [1, 11], []]

    def test_jobs_of_a_camera_with_a_slow_clock_do_not_overtake_jobs_that_became_overdue_earlier(self) -> None:
        scheduler, second = Scheduler(EvenModels(1)), 10**9
        scheduler.add(LIVE_0, job(LIVE_0, 0, captured_ns=90 * second), 100 * second)
        scheduler.add(LIVE_1, job(LIVE_1, 10, captured_ns=0), 101 * second)
        assert offsets(scheduler.next(101 * second)) == [0]

    def test_a_capture_time_in_the_future_counts_as_now(self) -> None:
        scheduler, second = Scheduler(EvenModels(1)), 10**9
        scheduler.add(LIVE_0, job(LIVE_0, 0, captured_ns=9000 * second), 100 * second)
        scheduler.add(LIVE_1, job(LIVE_1, 10, captured_ns=101 * second), 101 * second)
        assert offsets(scheduler.next(101 * second)) == [0]

    def test_a_smaller_batch_is_chosen_if_a_full_batch_would_miss_its_deadlines(self) -> None:
        models = EvenModels(8, row_s=0.3)
        scheduler = Scheduler(models)
        for offset in range(8):
            scheduler.add(LIVE_0, job(LIVE_0, offset, captured_ns=0), 0)
        assert offsets(scheduler.next(0)) == [0, 1, 2]

    def test_the_time_to_write_results_is_reserved_before_their_deadline(self) -> None:
        scheduler = Scheduler(EvenModels(8, row_s=0.3))
        scheduler.write_s = 0.35
        for offset in range(8):
            scheduler.add(LIVE_0, job(LIVE_0, offset, captured_ns=0), 0)
        assert offsets(scheduler.next(0)) == [0, 1]

    def test_the_batch_size_also_depends_on_the_deadlines_of_jobs_behind_the_batch(self) -> None:
        """A first batch of one job would meet all deadlines of the four first jobs, but none of the last three."""
        scheduler, second = Scheduler(EvenModels(4, row_s=0.09, base_s=0.1)), 10**9
        for offset, due_s in enumerate([0.25, *[0.6] * 3, *[1.0] * 4]):
            captured_ns = round((9.0 + due_s) * second)
            scheduler.add(LIVE_0, job(LIVE_0, offset, captured_ns=captured_ns), 10 * second)
        assert offsets(scheduler.next(10 * second)) == [0, 1, 2, 3]

    def test_late_and_replayed_frames_are_never_shed_by_the_scheduler(self) -> None:
        models = EvenModels(8, row_s=0.3)
        models.configure("regions", freshness_s=1.0)
        scheduler = Scheduler(models)
        for tp, offset, lane in ((LATE_0, 0, "late"), (LIVE_1, 1, "replay-7"), (LIVE_0, 2, "live")):
            one = item(offset, captured_ns=0, lane=lane)
            each = accept(record([one], offset=offset), HighWaterMarks(), frozenset({"regions"}))
            scheduler.add(tp, each, 5 * 10**9)
        assert [offsets(scheduler.next(5 * 10**9)) for _ in range(3)] == [[1], [0], []]
        assert scheduler.policies.shed_counts() == {("regions", "stale"): 1}

    @given(
        cameras=st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=4), min_size=1, max_size=20),
        most=st.integers(1, 4),
    )
    def test_a_batch_has_at_most_max_waiting_frames_of_each_camera_and_these_are_the_newest(
        self, cameras: list[list[int]], most: int
    ) -> None:
        models, seqs = EvenModels(64), Counter[str]()
        models.configure("regions", max_waiting=most)
        scheduler, marks, jobs = Scheduler(models), HighWaterMarks(), list[Job]()
        for offset, numbers in enumerate(cameras):
            items = []
            for camera in map(str, numbers):
                items.append(item(seqs[camera], camera=camera))
                seqs[camera] += 1
            jobs.append(accept(record(items, offset=offset), marks, frozenset({"regions"})))
            scheduler.add(LIVE_0, jobs[-1], 0)
        merged = scheduler.next(0)
        assert merged is not None
        found = Counter(task.item.camera for task in merged.tasks)
        assert found == {camera: min(count, most) for camera, count in seqs.items()}
        assert all(task.item.seq >= seqs[task.item.camera] - most for task in merged.tasks)
        shed = [one for job in jobs for one in job.items if one.outcome == "shed"]
        assert {one.reason for one in shed} <= {"crowded"}
        assert len(shed) == seqs.total() - found.total()
        assert scheduler.waiting == 0

    def test_late_frames_are_never_shed_because_of_max_waiting(self) -> None:
        models = EvenModels(8)
        models.configure("regions", max_waiting=1)
        scheduler = Scheduler(models)
        for offset in range(3):
            one = accept(record([item(offset, lane=LATE)], offset=offset), HighWaterMarks(), frozenset({"regions"}))
            scheduler.add(LATE_0, one, 0)
        assert offsets(scheduler.next(0)) == [0, 1, 2]

    def test_the_age_of_a_job_is_the_age_of_its_oldest_frame_that_is_not_shed(self) -> None:
        models, second = EvenModels(8, row_s=0.01), 10**9
        models.configure("regions", freshness_s=2.0)
        scheduler = Scheduler(models)
        two = record([item(0, captured_ns=second), item(1, captured_ns=5 * second)])
        each = accept(two, HighWaterMarks(), frozenset({"regions"}))
        scheduler.add(LIVE_0, each, 5 * second)
        merged = scheduler.next(5 * second)
        assert merged is not None
        assert [task.item.seq for task in merged.tasks] == [1]
        assert (each.captured_ns, each.waiting_rows, scheduler.waiting) == (5 * second, 1, 0)

    def test_a_full_batch_is_chosen_if_all_deadlines_are_missed_anyway(self) -> None:
        scheduler = Scheduler(EvenModels(4, row_s=2.0))
        for offset in range(8):
            scheduler.add(LIVE_0, job(LIVE_0, offset), 0)
        assert offsets(scheduler.next(0)) == [0, 1, 2, 3]

    def test_a_job_whose_model_is_loading_blocks_its_partition_while_other_jobs_are_classified(
        self,
    ) -> None:
        models = EvenModels(8)
        models.loading = {"other"}
        scheduler = Scheduler(models)
        scheduler.add(LIVE_0, job(LIVE_0, 0, rows=3, pipeline="other"), 0)
        scheduler.add(LIVE_0, job(LIVE_0, 1, rows=2), 0)
        scheduler.add(LIVE_1, job(LIVE_1, 2), 0)
        assert scheduler.blocked() == {LIVE_0}
        assert (scheduler.waiting, scheduler.rows_of(LIVE_1)) == (6, 1)
        assert offsets(scheduler.next(0)) == [1, 2]
        assert scheduler.next(0) is None
        models.loading.clear()
        assert scheduler.blocked() == set()
        assert (scheduler.rows_of(LIVE_0), scheduler.rows_of(LIVE_1)) == (3, 0)
        assert offsets(scheduler.next(0)) == [0]

    def test_late_jobs_are_never_merged_into_a_live_batch_and_run_after_the_live_batch(self) -> None:
        scheduler = Scheduler(EvenModels(8))
        scheduler.add(LATE_0, job(LATE_0, 0), 0)
        scheduler.add(LIVE_1, job(LIVE_1, 1), 0)
        assert (scheduler.rows_of(LIVE_1), scheduler.rows_of(LATE_0)) == (1, 1)
        assert [offsets(scheduler.next(0)) for _ in range(2)] == [[1], [0]]
        assert scheduler.waiting == 0

    def test_jobs_of_different_pipelines_are_not_merged_and_dropping_a_partition_removes_its_waiting_jobs(
        self,
    ) -> None:
        scheduler = Scheduler(EvenModels(8))
        scheduler.add(LIVE_0, job(LIVE_0, 0), 0)
        scheduler.add(LIVE_0, job(LIVE_0, 1, pipeline="other"), 0)
        assert offsets(scheduler.next(0)) == [0]
        scheduler.drop(LIVE_0)
        assert scheduler.next(0) is None
        assert scheduler.waiting == 0
