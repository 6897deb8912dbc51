"""Tests of the measured load of a device, of the steps by which a pipeline reduces its work, and of each policy in a
node."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest
from aiokafka import TopicPartition as KafkaPartition
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from engines.metrics import NodeMetrics
from engines.node.node import Node
from engines.node.overload import CALM_PERIODS, MOST_NTH, DeviceLoad, OverloadControl, PeriodLoad
from engines.node.pipelines import LiveModels
from ingest.contract.codec import decode
from ingest.contract.identity import LIVE, FrameId
from ingest.contract.records import BatchItem, Result
from ingest.contract.topics import BATCHES, DEADLETTER, RESULTS
from ingest.kafka.memorylog import MemoryLog
from ingest.ledger.balance import StateCounts, compute_balance
from ingest.ledger.entries import enter_result
from ingest.ledger.states import Ledger
from ingest.runtime.clock import ManualClock
from ingest.site import PipelineConfig
from ingest.site.pipeline import Overload
from tests.engines.node.batches import item, record
from tests.engines.node.fakesource import CARS, FakeIntake, FakeSource, configured, running, until_written

SATURATED = PeriodLoad(True, {"p": 1.0}, 1.0)
QUIET = PeriodLoad(False, {"p": 0.1}, 1.0)


def ended(control: OverloadControl, load: PeriodLoad, late_rows: int = 0, lighter_factor: float = 4.0) -> int:
    """End a period in which ten rows were classified, and return the degree."""
    control.classified(late_rows, 5.0, 1.0)
    control.classified(10 - late_rows, 0.5, 1.0)
    control.end_period(load, lighter_factor)
    return control.degree


class TestDeviceLoad:
    def test_a_period_in_which_work_always_waits_is_saturated_and_shows_the_node_s_capacity(self) -> None:
        load = DeviceLoad()
        assert load.note(0.0, True) is None
        load.use("a", 0.6)
        load.use("b", 0.3)
        assert load.note(1.0, True) == PeriodLoad(True, {"a": 0.6, "b": 0.3}, pytest.approx(0.9))

    def test_a_period_in_which_work_waits_for_half_of_the_time_is_not_saturated(self) -> None:
        load = DeviceLoad()
        load.note(0.0, True)
        load.note(1.0, False)
        load.use("a", 1.0)
        assert load.note(1.5, True) is None
        period = load.note(2.0, False)
        assert period == PeriodLoad(False, {"a": 1.0}, 0.0)

    def test_a_clock_that_goes_back_does_not_change_the_overload_measurement(self) -> None:
        load = DeviceLoad()
        load.note(10.0, True)
        assert load.note(3.0, True) is None
        assert load.note(10.5, False) is None

    @given(own=st.floats(0.0, 1.0), other=st.floats(0.0, 1.0), factor=st.floats(1.0, 10.0))
    def test_if_the_node_has_no_capacity_for_a_load_it_has_none_for_a_higher_load(
        self, own: float, other: float, factor: float
    ) -> None:
        load = PeriodLoad(False, {"p": own, "q": other}, 1.0)
        assert load.fits("p", factor) or not load.fits("p", factor + 1.0)


class TestOverloadControl:
    def test_late_results_without_a_saturated_node_are_no_overload(self) -> None:
        control = OverloadControl("p", "every-nth")
        assert [ended(control, QUIET, late_rows=10) for _ in range(5)] == [1] * 5

    def test_a_saturated_node_without_late_results_is_not_overloaded(self) -> None:
        control = OverloadControl("p", "every-nth")
        assert [ended(control, SATURATED, late_rows=3) for _ in range(5)] == [1] * 5

    def test_n_of_the_policy_every_nth_grows_at_every_second_overloaded_period_by_larger_and_larger_steps(
        self,
    ) -> None:
        control = OverloadControl("p", "every-nth")
        assert [ended(control, SATURATED, late_rows=10) for _ in range(7)] == [2, 2, 3, 3, 4, 4, 6]
        for _ in range(60):
            ended(control, SATURATED, late_rows=10)
        assert control.degree == MOST_NTH

    def test_n_of_the_policy_every_nth_does_not_grow_while_the_age_of_results_falls(self) -> None:
        control = OverloadControl("p", "every-nth")
        degrees = []
        for age_s in (9.0, 9.0, 8.0, 7.0, 6.0, 5.0, 4.95, 4.9):
            control.classified(10, age_s, 1.0)
            control.end_period(SATURATED, 1.0)
            degrees.append(control.degree)
        assert degrees == [2, 2, 2, 2, 2, 2, 3, 3]

    def test_n_of_the_policy_every_nth_falls_by_one_after_enough_successive_periods_with_low_load(self) -> None:
        control = OverloadControl("p", "every-nth")
        ended(control, SATURATED, late_rows=10)
        for _ in range(CALM_PERIODS - 1):
            assert ended(control, QUIET) == 2
        assert ended(control, SATURATED) == 2
        assert [ended(control, QUIET) for _ in range(CALM_PERIODS)] == [2] * (CALM_PERIODS - 1) + [1]

    def test_n_of_the_policy_every_nth_does_not_fall_if_more_frames_would_overload_the_node(self) -> None:
        control = OverloadControl("p", "every-nth")
        ended(control, SATURATED, late_rows=10)
        assert [ended(control, PeriodLoad(False, {"p": 0.45}, 1.0)) for _ in range(50)] == [2] * 50

    def test_the_lighter_model_stays_in_use_until_the_usual_model_could_keep_up(self) -> None:
        control = OverloadControl("p", "lighter")
        assert not control.lighter
        ended(control, SATURATED, late_rows=10)
        assert control.lighter
        for _ in range(50):
            ended(control, PeriodLoad(False, {"p": 0.25}, 1.0), lighter_factor=4.0)
        assert control.lighter
        for _ in range(CALM_PERIODS):
            ended(control, PeriodLoad(False, {"p": 0.15}, 1.0), lighter_factor=4.0)
        assert not control.lighter

    def test_the_overload_policy_shed_neither_lowers_the_frame_rate_nor_uses_a_lighter_model(self) -> None:
        control = OverloadControl("p", "shed")
        assert ended(control, SATURATED, late_rows=10) == 1

    @given(frames=st.integers(0, 200), steps=st.integers(0, 12))
    def test_the_overload_policy_every_nth_keeps_exactly_each_nth_frame_of_each_camera(
        self, frames: int, steps: int
    ) -> None:
        control = OverloadControl("p", "every-nth")
        for _ in range(steps):
            ended(control, SATURATED, late_rows=10)
        for camera in ("a", "b"):
            assert sum(control.keeps(camera) for _ in range(frames)) == frames // control.degree

    @pytest.mark.parametrize("policy", ["shed", "lighter"])
    def test_overload_policies_other_than_every_nth_keep_every_frame(self, policy: Overload) -> None:
        control = OverloadControl("p", policy)
        ended(control, SATURATED, late_rows=10)
        assert all(control.keeps("a") for _ in range(10))


IMAGE_S = 0.05
"""Time in s that the fake engine needs for one image, on the clock of the test."""
ROWS = 32
"""Rows of each frame: one batch of the model."""


class PolicyBench:
    """A node with one partition in memory, whose engine advances the clock for each image."""

    def __init__(self, **settings: object) -> None:
        self.clock, self.log, self.intake = ManualClock(), MemoryLog(1), FakeIntake()
        self.registry = CollectorRegistry()
        self.config = PipelineConfig.model_validate({**CARS.model_dump(), "name": "regions", **settings})
        self._source, self._sent = FakeSource(), 0
        metrics = NodeMetrics(self.registry)
        self._live = LiveModels(self._source, metrics, self.clock.monotonic)
        self._node = Node(
            self.log,
            self.intake,  # type: ignore[arg-type]
            self._live,
            concurrency=1,
            metrics=metrics,
            clock=self.clock,
        )

    async def start(self, stack: AsyncExitStack) -> None:
        stack.push_async_callback(self._live.close)
        await configured(self._live, [self.config])
        self._source.on_image = lambda: self.clock.advance(IMAGE_S)
        partition = KafkaPartition(f"sightline.{BATCHES}", 0)
        await stack.enter_async_context(running(self._node, self.intake, partition))

    def frame(self, age_s: float = 0.0, rows: int = ROWS) -> BatchItem:
        captured_ns = self.clock.now_ns() - round(age_s * 1e9)
        self._sent += 1
        return item(self._sent - 1, rows=rows, captured_ns=captured_ns)

    async def classify(self, *frames: BatchItem) -> list[Result]:
        """Send frames in one fetch, and return all results once each frame sent so far has one."""
        self.intake.fetched.put_nowait([record([each], offset=each.seq) for each in frames])
        await until_written(self.log, RESULTS, self._sent)
        assert (await self.log.ends(DEADLETTER))[0] == 0
        found = [decode(Result, each.value) async for each in self.log.read(RESULTS, 0, 0, self._sent)]
        assert [each.seq for each in found] == list(range(self._sent))  # each frame has exactly one end
        return found[-len(frames) :]

    async def balance(self) -> StateCounts:
        """Return the ledger of all frames sent. Each frame must have exactly one end."""
        ledger = Ledger()
        for seq in range(self._sent):
            ledger.add_frame(FrameId("a", 7, seq), LIVE, None)
        async for each in self.log.read(RESULTS, 0, 0, self._sent):
            enter_result(ledger, each)
        found = compute_balance(ledger)
        assert found.balanced
        return found.totals

    def metric(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"sightline_engine_{name}", {"pipeline": "regions", **labels})


async def started(stack: AsyncExitStack, **settings: object) -> PolicyBench:
    bench = PolicyBench(**settings)
    await bench.start(stack)
    return bench


class TestNodePolicies:
    async def test_a_frame_too_old_to_give_a_fresh_result_is_shed_with_a_reason(self, stack: AsyncExitStack) -> None:
        bench = await started(stack, freshness_s=2.0)
        found = await bench.classify(bench.frame(age_s=5.0), bench.frame())
        assert [(each.outcome, each.reason, each.model) for each in found] == [
            ("shed", "stale", ""),
            ("classified", "", "regions@1"),
        ]
        assert bench.metric("shed_total", reason="stale") == 1
        assert (await bench.balance()).shed == {"stale": 1}

    async def test_an_overloaded_node_keeps_every_nth_frame_and_sheds_the_other_frames_with_a_reason(
        self, stack: AsyncExitStack
    ) -> None:
        bench = await started(stack, overload="every-nth")
        overload = await bench.classify(*(bench.frame() for _ in range(8)))
        assert {each.outcome for each in overload} == {"classified"}
        degree = int(bench.metric("overload_degree") or 1)
        assert degree > 1
        thinned = await bench.classify(*(bench.frame() for _ in range(degree)))
        assert [each.outcome for each in thinned] == ["shed"] * (degree - 1) + ["classified"]
        assert {each.reason for each in thinned[:-1]} == {"every_nth"}
        assert bench.metric("shed_total", reason="every_nth") == degree - 1
        ledger = await bench.balance()
        assert (ledger.classified, ledger.shed) == (9, {"every_nth": degree - 1})

    async def test_results_of_an_overloaded_node_name_the_lighter_model_until_the_load_falls(
        self, stack: AsyncExitStack
    ) -> None:
        bench = await started(stack, overload="lighter", lighter="regions@9")
        overload = await bench.classify(*(bench.frame() for _ in range(8)))
        assert overload[0].model == "regions@1"
        assert (overload[-1].model, overload[-1].reason, overload[-1].outcome) == (
            "regions@9",
            "lighter",
            "classified",
        )
        async with asyncio.timeout(60):
            while True:
                bench.clock.advance(20.0)
                (calm,) = await bench.classify(bench.frame(rows=1))
                if calm.model == "regions@1":
                    break
        assert calm.reason == ""
        assert bench.metric("overload_degree") == 1
        ledger = await bench.balance()
        assert ledger.classified == ledger.captured

    async def test_stage_times_of_a_batch_are_metrics_labelled_with_pipeline_and_model(
        self, stack: AsyncExitStack
    ) -> None:
        bench = await started(stack)
        await bench.classify(bench.frame(), bench.frame())
        for stage in ("queue", "copy", "compute", "decode"):
            count = bench.metric(f"{stage}_seconds_count", model="regions@1")
            assert count, stage
