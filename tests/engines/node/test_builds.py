"""Tests of models whose TensorRT plan is built while the node runs. TensorRT and its device are fakes."""

from __future__ import annotations

import asyncio
import fcntl
import threading
from collections.abc import AsyncIterator, Callable

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from engines.backends.onnxruntime import OnnxRuntimeEngine
from engines.backends.tensorrt.builder import BuildControl, BuildProgress
from engines.backends.tensorrt.engine import SLOTS, TensorRtEngine
from engines.backends.tensorrt.plans import PlanCache
from engines.engine import Engine
from engines.exceptions import BuildCancelled, EngineStateError, ModelLoadFailed
from engines.metrics import NodeMetrics
from engines.node.pipelines import RETRY_S, LiveModels
from engines.node.serving import SecondModel, ServedModel
from engines.repository.canary import Canary
from engines.repository.store import Repository
from ingest.site import PipelineConfig, SecondModelConfig
from tests.engines.backends.tensorrt.rig import FakeRig
from tests.engines.node.fakesource import CARS, PEOPLE, configured
from tests.paths import MODELS


class BuildBench:
    """Live models on a fake GPU. Each build waits at its first step until ``may_build`` is set."""

    def __init__(self, rig: FakeRig) -> None:
        self.rig = rig
        self.may_build = threading.Event()
        self.building = threading.Semaphore(0)
        self.stand_ins: list[OnnxRuntimeEngine] = []
        self.broken_stand_in = False
        self.may_stand_in, self.standing_in = threading.Event(), threading.Event()
        self.may_stand_in.set()
        self.cancels_in_time = True
        """Whether a cancelled build ends without a plan. A build that is cancelled after its last step has a plan."""
        self.beside: Canary | None = None
        self.now_s = 0.0
        self.registry = CollectorRegistry()
        self.live = LiveModels(self, NodeMetrics(self.registry), lambda: self.now_s)
        self.changed = asyncio.Event()
        self.live.on_update = self.changed.set

    def version(self, wanted: PipelineConfig | SecondModelConfig) -> str:
        return "regions@1"

    def canary(self, pipeline: PipelineConfig) -> Canary | None:
        return self.beside

    def make(self, wanted: PipelineConfig | SecondModelConfig) -> ServedModel | SecondModel:
        return self._made(wanted, self._engine())

    def stand_in(self, wanted: PipelineConfig | SecondModelConfig) -> ServedModel | SecondModel | None:
        self.standing_in.set()
        assert self.may_stand_in.wait(60)
        if self.broken_stand_in:
            raise ModelLoadFailed("the CPU cannot compute it")
        self.stand_ins.append(OnnxRuntimeEngine())
        return self._made(wanted, self.stand_ins[-1])

    def _made(self, wanted: PipelineConfig | SecondModelConfig, engine: Engine) -> ServedModel | SecondModel:
        kind = ServedModel if isinstance(wanted, PipelineConfig) else SecondModel
        return kind(wanted, Repository(MODELS).open("regions"), engine)  # type: ignore[arg-type]

    async def engine(self, pipeline: str = "cars") -> Engine:
        async with self.live.use(pipeline) as model:
            return model._first._engine

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition holds after an update of the models."""
        async with asyncio.timeout(60):
            while not condition():
                await self.changed.wait()
                self.changed.clear()

    async def begun(self) -> None:
        """Wait until a build has begun."""
        assert await asyncio.to_thread(self.building.acquire, timeout=60)

    def metric(self, name: str) -> float | None:
        return self.registry.get_sample_value(f"sightline_engine_{name}")

    def _engine(self) -> TensorRtEngine:
        control = BuildControl(self._wait)
        cancel = control.cancel if self.cancels_in_time else lambda: None
        control.cancel = lambda: (cancel(), self.may_build.set())  # type: ignore[method-assign, assignment]
        return self.rig.engine(control)

    def _wait(self, progress: BuildProgress) -> None:
        if progress.step == 0:
            self.building.release()
            assert self.may_build.wait(60)


@pytest.fixture
async def bench(rig: FakeRig) -> AsyncIterator[BuildBench]:
    bench = BuildBench(rig)
    yield bench
    await bench.live.close()


async def test_a_stand_in_model_on_the_cpu_serves_until_the_tensorrt_plan_is_built(bench: BuildBench) -> None:
    await configured(bench.live, [CARS])
    await bench.begun()
    assert await bench.engine() is bench.stand_ins[0]
    assert bench.metric("stand_ins") == 1
    assert bench.live.slot_count == SLOTS
    async with bench.live.use("cars") as used:
        bench.may_build.set()
        await bench.until(lambda: bench.metric("stand_ins") == 0)
        assert used._first._engine is bench.stand_ins[0]
        assert bench.stand_ins[0].model
    assert isinstance(await bench.engine(), TensorRtEngine)
    await bench.live.update()
    assert (len(bench.stand_ins), bench.rig.trt.builds) == (1, 1)


async def test_a_tensorrt_plan_built_during_the_warm_up_of_its_stand_in_model_ends_the_warm_up(
    bench: BuildBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await configured(bench.live, [CARS, PEOPLE])
    await bench.begun()
    first, second = bench.stand_ins
    warming, may_warm = threading.Event(), threading.Event()

    def finish_warm_up() -> None:
        warming.set()
        assert may_warm.wait(60)

    monkeypatch.setattr(first, "finish_warm_up", finish_warm_up)
    with capture_logs() as logs:
        finishing = asyncio.create_task(bench.live._finish_warm_ups())
        assert await asyncio.to_thread(warming.wait, 60)
        bench.may_build.set()
        await bench.until(lambda: bench.metric("stand_ins") == 0)
        await asyncio.gather(*bench.live._closing)
        with pytest.raises(EngineStateError):
            _ = second.model
        may_warm.set()
        await finishing
    assert not [line for line in logs if line["event"] == "batches_of_one_image_only"]
    assert [line["batch_size"] for line in logs if line["event"] == "batch_size_chosen"] == [first.batch_size]


async def test_a_second_stage_model_also_has_a_stand_in_model_and_its_plan_is_built_after_the_first_plan(
    bench: BuildBench,
) -> None:
    second = SecondModelConfig(name="type", model="regions", precision="fp16")
    await configured(bench.live, [CARS.model_copy(update={"then": (second,)})])
    assert len(bench.stand_ins) == 2
    assert bench.metric("stand_ins") == 2
    bench.may_build.set()
    await bench.until(lambda: bench.metric("stand_ins") == 0)
    async with bench.live.use("cars") as cascade:
        ((_, model),) = cascade._seconds
        assert isinstance(model and model._engine, TensorRtEngine)


async def test_a_model_with_a_cached_tensorrt_plan_is_served_immediately_without_a_stand_in_model(
    bench: BuildBench,
) -> None:
    bench.may_build.set()
    earlier = bench.rig.engine()
    earlier.load(Repository(MODELS).open("regions"))
    await configured(bench.live, [CARS])
    assert isinstance(await bench.engine(), TensorRtEngine)
    assert bench.stand_ins == []


async def test_the_present_model_serves_while_the_tensorrt_plan_of_its_successor_is_built(bench: BuildBench) -> None:
    bench.may_build.set()
    await configured(bench.live, [CARS])
    await bench.until(lambda: bench.metric("stand_ins") == 0)
    before = await bench.engine()
    bench.may_build.clear()
    for plan in bench.rig.plans.folder.glob("*.plan"):
        plan.unlink()
    await configured(bench.live, [CARS.model_copy(update={"min_score": 0.5})])
    await bench.begun()
    assert await bench.engine() is before
    assert len(bench.stand_ins) == 1


async def test_a_node_that_stops_cancels_its_plan_build(bench: BuildBench) -> None:
    await configured(bench.live, [CARS, PEOPLE])
    await bench.begun()
    async with asyncio.timeout(60):
        await bench.live.close()
    assert not bench.live._serving
    assert not list(bench.rig.plans.folder.glob("*.plan"))
    assert bench.rig.trt.builds == 1


async def test_the_removal_of_a_pipeline_cancels_its_plan_build(bench: BuildBench) -> None:
    await configured(bench.live, [CARS])
    await bench.begun()
    bench.live.want([])
    await bench.until(lambda: not bench.live._builds)
    assert not list(bench.rig.plans.folder.glob("*.plan"))
    assert bench.metric("refused_models") == 0


async def test_the_end_of_a_canary_cancels_its_plan_build(bench: BuildBench) -> None:
    bench.may_build.set()
    await configured(bench.live, [CARS])
    await bench.until(lambda: bench.metric("stand_ins") == 0)
    bench.may_build.clear()
    for plan in bench.rig.plans.folder.glob("*.plan"):
        plan.unlink()
    bench.beside = Canary(model="regions", version=1, share=1.0, since_ns=1)
    await bench.live.update()
    await bench.begun()
    bench.beside = None
    await bench.live.update()
    assert bench.live._builds["cars/canary"].cancelled
    await bench.until(lambda: not bench.live._builds)
    assert not list(bench.rig.plans.folder.glob("*.plan"))


async def test_no_tensorrt_plan_is_built_for_a_pipeline_removed_while_its_stand_in_model_loads(
    bench: BuildBench,
) -> None:
    bench.may_stand_in.clear()
    bench.live.want([CARS])
    updating = asyncio.create_task(bench.live.update())
    assert await asyncio.to_thread(bench.standing_in.wait, 60)
    bench.live.want([])
    bench.may_stand_in.set()
    await updating
    await bench.until(lambda: not bench.live._builds)
    assert bench.rig.trt.builds == 0


async def test_a_model_whose_plan_build_is_cancelled_after_its_last_step_is_not_served(bench: BuildBench) -> None:
    bench.cancels_in_time = False
    await configured(bench.live, [CARS])
    await bench.begun()
    bench.live.want([])
    await bench.until(lambda: not bench.live._builds)
    assert bench.rig.trt.builds == 1
    assert await bench.engine() is bench.stand_ins[0]


async def test_after_a_failed_plan_build_the_stand_in_model_serves_and_the_build_is_retried_later(
    bench: BuildBench,
) -> None:
    bench.rig.trt.fail_build = True
    bench.may_build.set()
    await configured(bench.live, [CARS])
    await bench.until(lambda: bench.metric("refused_models") == 1)
    await bench.live.update()
    assert await bench.engine() is bench.stand_ins[0]
    assert bench.rig.trt.builds == 1
    bench.rig.trt.fail_build, bench.now_s = False, RETRY_S
    await bench.live.update()
    await bench.until(lambda: bench.metric("stand_ins") == 0)
    assert isinstance(await bench.engine(), TensorRtEngine)
    assert (len(bench.stand_ins), bench.metric("refused_models")) == (1, 0)


async def test_a_pipeline_without_a_stand_in_model_counts_as_loading_until_its_tensorrt_plan_is_built(
    bench: BuildBench,
) -> None:
    bench.broken_stand_in = True
    await configured(bench.live, [CARS])
    await bench.begun()
    assert bench.live.is_loading("cars")
    bench.may_build.set()
    await bench.until(lambda: not bench.live.is_loading("cars"))
    assert isinstance(await bench.engine(), TensorRtEngine)


async def test_a_changed_pipeline_cancels_its_plan_build_and_begins_another(bench: BuildBench) -> None:
    await configured(bench.live, [CARS])
    await bench.begun()
    await configured(bench.live, [CARS.model_copy(update={"min_score": 0.5})])
    await bench.until(lambda: bench.metric("stand_ins") == 0)
    async with bench.live.use("cars") as model:
        assert isinstance(model._first._engine, TensorRtEngine)
    assert [serving.settings.min_score for serving in bench.live._serving.values()] == [0.5]


def test_a_cancelled_model_load_does_not_wait_for_the_plan_build_of_another_process(rig: FakeRig) -> None:
    rig.plans.folder.mkdir(parents=True)
    control = BuildControl()
    engine, model = rig.engine(control), Repository(MODELS).open("regions")
    assert engine.needs_build(model)
    key = engine._key(rig.trt, rig.thread, model)
    with (rig.plans.folder / f"{key.name}.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        control.cancel()
        with pytest.raises(BuildCancelled, match="which another process builds"):
            engine.load(model)
    with pytest.raises(BuildCancelled, match="free again"), PlanCache(rig.plans.folder).building(key):
        raise BuildCancelled("the lock is free again")


def test_an_engine_without_a_gpu_requests_no_plan_build(rig: FakeRig) -> None:
    rig.reason = "no GPU"
    assert not rig.engine().needs_build(Repository(MODELS).open("regions"))
