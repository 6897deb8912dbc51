"""Tests of the scheduler in a simulated node under overload."""

from __future__ import annotations

import heapq
import random
from collections import Counter, defaultdict

import numpy as np
import pytest

from engines.node.fairshare import FLOOR_SHARE
from engines.node.intake import LIVE_ROWS_PER_INSTANCE
from engines.node.jobs import HighWaterMarks, ItemTask, Job, accept
from engines.node.scheduler import Scheduler
from ingest.contract.identity import LATE, LIVE
from ingest.contract.records import Canvas, Preparation
from ingest.contract.topics import BATCHES, BATCHES_LATE
from ingest.kafka.log import LogRecord, TopicPartition
from tests.engines.node.batches import LATE_0, LIVE_0, LIVE_1, EvenModels, item, job, offsets, record

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

    def test_two_pipelines_get_equal_measured_device_time_even_if_expected_batch_times_are_wrong(self) -> None:
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
    def test_the_setting_max_waiting_keeps_frames_of_a_slow_camera_when_a_fast_camera_overloads_the_node(
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
    def test_the_lighter_model_classifies_only_live_batches_and_only_after_it_is_loaded(
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
