"""Tests of the scheduler: deadlines, merging, loading models, lanes, and a simulated node under overload."""

from __future__ import annotations

import heapq
import random
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.node.fairshare import FLOOR_SHARE
from engines.node.intake import LIVE_ROWS_PER_INSTANCE
from engines.node.jobs import HighWaterMarks, ItemTask, Job, accept
from engines.node.scheduler import MergedBatch, Scheduler
from ingest.contract.identity import LATE, LIVE
from ingest.contract.records import Canvas, Preparation
from ingest.contract.topics import BATCHES, BATCHES_LATE
from ingest.kafka.log import LogRecord, TopicPartition
from tests.engines.node.batches import EvenModels, item, record

LIVE_0, LIVE_1, LATE_0 = TopicPartition(BATCHES, 0), TopicPartition(BATCHES, 1), TopicPartition(BATCHES_LATE, 0)


def job(
    tp: TopicPartition, offset: int, rows: int = 1, pipeline: str = "regions", captured_ns: int | None = None
) -> Job:
    one = item(offset, camera=f"c{tp.partition}", rows=rows, captured_ns=captured_ns)
    return accept(record([one], offset=offset, pipeline=pipeline), HighWaterMarks(), frozenset({pipeline}))


def offsets(merged: MergedBatch | None) -> list[int]:
    return [] if merged is None else [each.record.offset for each in merged.jobs]


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

    def test_jobs_of_different_pipelines_are_never_merged_and_no_dropped_job_is_scheduled(self) -> None:
        scheduler = Scheduler(EvenModels(8))
        scheduler.add(LIVE_0, job(LIVE_0, 0), 0)
        scheduler.add(LIVE_0, job(LIVE_0, 1, pipeline="other"), 0)
        assert offsets(scheduler.next(0)) == [0]
        scheduler.drop(LIVE_0)
        assert scheduler.next(0) is None
        assert scheduler.waiting == 0


PLAIN = item(0)
PIXELS = np.zeros((64, 64, 3), np.uint8)


class SimulatedNode:
    """A device that computes one batch at a time, and cameras that send frames of one region. Times in s.

    The frames of each pipeline wait in a partition of their own, from which few are read ahead.
    """

    def __init__(self, models: EvenModels) -> None:
        self.models = models
        self.scheduler = Scheduler(models)
        self.now_s = 0.0
        self.lane = LIVE
        self.slowness: defaultdict[str, float] = defaultdict(lambda: 1.0)
        """Time that a batch of a pipeline takes, as a multiple of the expected time."""
        self.arrivals: defaultdict[str, list[float]] = defaultdict(list)
        self.used_s: Counter[str] = Counter()
        self.done: defaultdict[str, list[float]] = defaultdict(list)
        """Latency of each region in s, by pipeline."""
        self.jobs: list[Job] = []
        self.degrees: list[tuple[float, int]] = []
        """Each change of a degree, with its time in s."""

    def camera(self, pipeline: str, per_s: float, seconds: float, seed: int = 0, begin_s: float = 0.0) -> None:
        """Let frames of a pipeline arrive at random times. The time between two is exponentially distributed."""
        chance, now_s = random.Random(seed), begin_s
        while (now_s := now_s + chance.expovariate(per_s)) < begin_s + seconds:
            heapq.heappush(self.arrivals[pipeline], now_s)

    def read(self, pipeline: str, times: list[float], tp: TopicPartition, now_s: float) -> None:
        """Read the frames that have arrived, up to the limit of waiting rows."""
        while times and times[0] <= now_s and self.scheduler.rows_of(tp) < LIVE_ROWS_PER_INSTANCE:
            captured_ns, number = round(heapq.heappop(times) * 1e9), len(self.jobs)
            one = PLAIN.model_copy(update={"seq": number, "captured_ns": captured_ns, "lane": self.lane})
            task = ItemTask(one, Preparation(Canvas(64, 64, 3)), [PIXELS])
            self.jobs.append(Job(LogRecord(*tp, number, None, b""), pipeline, True, [one], {0: task}))
            self.scheduler.add(tp, self.jobs[-1], round(now_s * 1e9))

    def run(self, until_s: float) -> None:
        """Simulate up to a time. A batch that is running then is finished."""
        now_s = self.now_s
        while now_s < until_s:
            for number, (pipeline, times) in enumerate(self.arrivals.items()):
                self.read(pipeline, times, TopicPartition(BATCHES, number), now_s)
            merged = self.scheduler.next(round(now_s * 1e9))
            self.degrees += [(now_s, control.degree) for control in self.scheduler.policies.changed_controls()]
            if merged is None:
                now_s = min([until_s, *(times[0] for times in self.arrivals.values() if times)])
                continue
            expected_s = self.models.batch_s(merged.pipeline, merged.rows, lighter=merged.lighter)
            merged.took.compute = expected_s * self.slowness[merged.pipeline]
            now_s += merged.took.compute
            self.used_s[merged.pipeline] += merged.took.compute
            self.scheduler.finished(merged)
            for task in merged.tasks:
                task.detections = []
            self.done[merged.pipeline] += [now_s - task.item.captured_ns / 1e9 for task in merged.tasks]
        self.now_s = now_s

    def outcomes(self) -> Counter[str]:
        """Return the number of frames by their end: classified, waiting, or a reason of shedding."""
        ends = [(each.items[0].reason or "classified") if each.settled else "waiting" for each in self.jobs]
        return Counter(ends)

    def goodput(self, pipeline: str) -> int:
        """Return the number of regions that met the latency goal of their pipeline."""
        return sum(latency_s <= self.models.config(pipeline).goal_s for latency_s in self.done[pipeline])


class TestOverloadedNode:
    def test_two_overloaded_pipelines_of_equal_priority_get_equal_device_time_at_unequal_rates(self) -> None:
        node = SimulatedNode(EvenModels(8, row_s=0.01, base_s=0.01))
        node.camera("a", 300, 20)
        node.camera("b", 90, 20, seed=1)
        node.run(20)
        assert abs(node.used_s["a"] - node.used_s["b"]) < 0.3

    def test_device_time_is_shared_by_measured_times_even_if_expected_times_are_wrong(self) -> None:
        node = SimulatedNode(EvenModels(8, row_s=0.01, base_s=0.01))
        node.slowness["b"] = 3.0
        node.camera("a", 300, 20)
        node.camera("b", 300, 20, seed=1)
        node.run(20)
        assert abs(node.used_s["a"] - node.used_s["b"]) < 0.5

    def test_the_lowest_priority_keeps_its_minimum_share_and_the_highest_priority_the_rest(self) -> None:
        models = EvenModels(8, row_s=0.01, base_s=0.01)
        models.configure("vital", priority="high")
        models.configure("spare", priority="low")
        node = SimulatedNode(models)
        node.camera("vital", 300, 20)
        node.camera("spare", 300, 20, seed=1)
        node.run(20)
        assert node.used_s["spare"] / 20 > FLOOR_SHARE - 0.01
        assert node.used_s["vital"] / 20 > 1 - FLOOR_SHARE - 0.02

    def test_a_high_priority_pipeline_meets_its_latency_goal_while_a_low_priority_one_is_overloaded(self) -> None:
        models = EvenModels(8, row_s=0.01, base_s=0.01)
        models.configure("vital", priority="high", latency_goal_s=0.5)
        models.configure("spare", priority="low")
        node = SimulatedNode(models)
        node.camera("vital", 40, 20)
        node.camera("spare", 300, 20, seed=1)
        node.run(20)
        assert node.goodput("vital") >= 0.99 * len(node.done["vital"])

    def test_an_unloaded_node_meets_latency_goals_of_different_lengths(self) -> None:
        models = EvenModels(8, row_s=0.01, base_s=0.02)
        models.configure("quick", latency_goal_s=0.15)
        models.configure("slow", latency_goal_s=2.0)
        node = SimulatedNode(models)
        node.camera("quick", 15, 20)
        node.camera("slow", 25, 20, seed=1)
        node.run(20)
        assert node.goodput("quick") >= 0.99 * len(node.done["quick"])
        assert node.goodput("slow") == len(node.done["slow"]) > 0


FULL_S = 0.09
"""Time of a full batch of eight rows. The device computes 89 rows a second."""


def policy_node(per_s: float = 270, **settings: object) -> SimulatedNode:
    """Return a node with three times the load that its device can compute for 20 s, then with a fifth for 40 s."""
    models = EvenModels(8, row_s=0.01, base_s=0.01)
    models.configure("p", **settings)
    node = SimulatedNode(models)
    node.camera("p", per_s, 20)
    node.camera("p", 18, 40, seed=1, begin_s=20)
    return node


class TestOverloadPolicies:
    def test_shedding_stale_frames_keeps_all_results_fresh_and_the_device_busy(self) -> None:
        node = policy_node(overload="shed", freshness_s=1.0)
        node.run(20)
        capacity = 20 / FULL_S * 8
        assert node.goodput("p") >= 0.9 * capacity
        assert node.goodput("p") >= 0.95 * len(node.done["p"])
        node.run(60)
        assert set(node.outcomes()) == {"classified", "stale"}

    def test_a_pipeline_without_the_setting_freshness_s_sheds_no_frame(self) -> None:
        node = policy_node(per_s=120, overload="shed")
        node.run(60)
        assert node.outcomes() == {"classified": len(node.jobs)}

    @pytest.mark.parametrize(("most", "stale"), [(0, True), (4, False)])
    def test_with_max_waiting_an_overload_by_a_fast_camera_costs_a_slow_camera_no_frame(
        self, most: int, stale: bool
    ) -> None:
        """In each tenth of a second, 26 frames of a fast camera and 1 of a slow one arrive, and 8 are classified."""
        models = EvenModels(8, row_s=0.0125)
        models.configure("regions", freshness_s=1.0, max_waiting=most)
        scheduler, marks, slow = Scheduler(models), HighWaterMarks(), list[Job]()
        for step in range(40):
            now_ns = step * 10**8
            for seq in range(26):
                one = item(26 * step + seq, camera="fast", captured_ns=now_ns)
                scheduler.add(LIVE_0, accept(record([one], offset=0), marks, frozenset({"regions"})), now_ns)
            slow.append(
                accept(record([item(step, camera="slow", captured_ns=now_ns)]), marks, frozenset({"regions"}))
            )
            scheduler.add(LIVE_1, slow[-1], now_ns)
            merged = scheduler.next(now_ns)
            for task in merged.tasks if merged else ():
                task.detections = []
        reasons = Counter(each.items[0].reason for each in slow[:30])
        assert (reasons["stale"] > 8) is stale
        assert reasons["crowded"] == 0
        assert stale or reasons == {"": 30}

    def test_every_nth_frame_is_kept_during_an_overload_and_every_frame_afterwards(self) -> None:
        node = policy_node(overload="every-nth")
        node.run(20)
        steps = len(node.degrees)
        before = len(node.jobs)
        highest = max(degree for _, degree in node.degrees)
        assert 3 <= highest <= 12
        assert 0 < steps <= 12
        node.run(60)
        assert set(node.outcomes()) == {"classified", "every_nth"}
        assert node.degrees[-1][1] == 1
        last_s = node.degrees[-1][0]
        after = [each for each in node.jobs[before:] if each.items[0].captured_ns > last_s * 1e9]
        assert after
        assert not [each for each in after if each.items[0].reason]

    @pytest.mark.parametrize("other", ["loading", "late"])
    def test_frames_that_are_late_or_whose_model_is_loading_do_not_prolong_the_load_reduction(
        self, other: str
    ) -> None:
        node = policy_node(overload="every-nth")
        late_tp = TopicPartition(BATCHES_LATE if other == "late" else BATCHES, 9)
        node.models.loading = {"other"} if other == "loading" else set()
        node.run(20)
        assert node.degrees[-1][1] > 1
        backlog = [20.0] * (20_000 if other == "late" else 10)
        while node.now_s < 60:
            node.read("other", backlog, late_tp, node.now_s)
            node.run(node.now_s + 0.1)
        assert node.degrees[-1][1] == 1
        assert node.scheduler.rows_of(late_tp)  # the other frames wait until the end

    def test_old_replayed_frames_do_not_count_as_a_sign_of_overload(self) -> None:
        node = policy_node(overload="every-nth")
        node.lane = "replay-1"
        node.run(20)
        assert node.degrees == []

    @pytest.mark.parametrize("lane", [LATE, "replay-7"])
    def test_the_overload_policy_every_nth_keeps_all_late_and_replayed_frames(self, lane: str) -> None:
        node = policy_node(overload="every-nth")
        node.run(10)
        assert node.degrees[-1][1] > 1
        frames = [item(seq, lane=lane) for seq in range(20)]
        each = accept(record(frames, pipeline="p"), HighWaterMarks(), frozenset({"p"}))
        node.scheduler.policies.thin(each)
        assert len(each.tasks) == 20

    def test_a_new_overload_policy_ends_the_load_reduction_of_the_old_policy(self) -> None:
        node = policy_node(overload="every-nth")
        node.run(10)
        assert node.degrees[-1][1] > 1
        node.models.configure("p", overload="shed")
        node.run(11)
        assert node.degrees[-1][1] == 1

    def test_an_overload_causes_one_switch_to_the_lighter_model_and_one_switch_back_afterwards(self) -> None:
        node = policy_node(overload="lighter", lighter="small")
        node.run(20)
        assert [degree for _, degree in node.degrees] == [2]
        assert node.degrees[0][0] < 5
        recent = node.done["p"][-500:]
        assert sum(latency_s <= 1.0 for latency_s in recent) == 500
        node.run(60)
        assert [degree for _, degree in node.degrees] == [2, 1]
        assert node.outcomes() == {"classified": len(node.jobs)}

    def test_the_lighter_model_stays_in_use_while_the_usual_model_could_not_keep_up(self) -> None:
        models = EvenModels(8, row_s=0.01, base_s=0.01)
        models.configure("p", overload="lighter", lighter="small")
        node = SimulatedNode(models)
        node.camera("p", 120, 40)
        node.run(40)
        assert [degree for _, degree in node.degrees] == [2]

    @pytest.mark.parametrize(
        ("tp", "is_loaded", "lighter"), [(LIVE_0, True, True), (LATE_0, True, False), (LIVE_0, False, False)]
    )
    def test_the_lighter_model_classifies_only_live_batches_and_only_once_it_is_loaded(
        self, tp: TopicPartition, is_loaded: bool, lighter: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        node = policy_node(overload="lighter", lighter="small")
        node.run(10)
        assert node.degrees[-1][1] == 2
        node.scheduler.drop(LIVE_0)
        monkeypatch.setattr(node.models, "has_lighter", lambda _: is_loaded)
        node.scheduler.add(tp, job(tp, 0, pipeline="p"), round(node.now_s * 1e9))
        merged = node.scheduler.next(round(node.now_s * 1e9))
        assert offsets(merged) == [0]
        assert merged is not None
        assert merged.lighter == lighter
