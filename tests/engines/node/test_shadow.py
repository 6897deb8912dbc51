"""Tests of shadow mode: a candidate is compared with the served model, and never concerns a result."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from engines.backends.fake import FakeEngine
from engines.engine import Images, Outputs, Slot
from engines.exceptions import DeviceLost, ModelLoadFailed
from engines.metrics import NodeMetrics
from engines.node import shadow
from engines.node.jobs import HighWaterMarks, accept
from engines.node.node import Node
from engines.node.pipelines import LiveModels
from engines.node.scheduler import MergedBatch
from engines.node.serving import ServedModel
from engines.node.shadow import FAILURES, LOWEST_PRIORITY, QUEUED_FRAMES, ShadowRunner, lower_priority
from engines.repository.manifest import Model
from engines.repository.store import Repository
from ingest.contract.codec import decode
from ingest.contract.records import Result, ShadowRecord
from ingest.contract.topics import DEADLETTER, RESULTS, SHADOW
from ingest.exceptions import LogUnavailable
from ingest.kafka.log import Outgoing, Position
from ingest.kafka.memorylog import MemoryLog
from ingest.site import PipelineConfig
from tests.engines.node.batches import PIPELINES, item, record
from tests.engines.node.fakesource import CARS, FakeIntake, FakeSource, configured, running, until_written
from tests.engines.node.test_node import ONE
from tests.paths import MODELS

REGIONS = CARS.model_copy(update={"name": "regions", "shadow": "regions@2", "shadow_share": 1.0})


class NextLabelEngine(FakeEngine):
    """Engine that finds the label after the one that a FakeEngine finds."""

    def _infer_impl(self, images: Images) -> Outputs:
        return super()._infer_impl(np.asarray(images + 1, np.uint8))


class CandidateSource:
    """Source of candidates: ``engines`` has the engine by version. A version without an engine does not load."""

    def __init__(self, **engines: FakeEngine) -> None:
        self.engines = engines

    def version(self, pipeline: PipelineConfig) -> str:
        return pipeline.model

    def canary(self, pipeline: PipelineConfig) -> None:
        return None

    def make(self, pipeline: PipelineConfig) -> ServedModel:
        number = pipeline.model.partition("@")[2]
        if f"v{number}" not in self.engines:
            raise ModelLoadFailed(f"{pipeline.model} is broken")
        model = Repository(MODELS).open("regions")
        manifest = model.manifest.model_copy(update={"version": int(number)})
        return ServedModel(pipeline, Model(manifest, model.folder), self.engines[f"v{number}"])

    def stand_in(self, pipeline: PipelineConfig) -> ServedModel | None:
        return None


class ShadowBench:
    """A runner of candidates that writes to a log in memory."""

    def __init__(self, **engines: FakeEngine) -> None:
        self.log = MemoryLog(2)
        self.registry = CollectorRegistry()
        self.metrics = NodeMetrics(self.registry)
        self.runner = ShadowRunner(CandidateSource(**engines), self.log.produce, self.metrics)
        self.task: asyncio.Task[None] | None = None

    async def start(self, pipeline: PipelineConfig = REGIONS) -> None:
        """Let the runner load the candidate of a pipeline."""
        self.runner.want([pipeline])
        self.task = asyncio.create_task(self.runner.run(60.0))
        await self.until(lambda: not self.runner._models.is_loading(pipeline.name))

    def offer(self, *seqs: int, first_pixel: int = 1) -> None:
        """Offer frames that the served model has classified as ``car``."""
        job = accept(record([item(seq) for seq in seqs], first_pixel=first_pixel), HighWaterMarks(), PIPELINES)
        merged = MergedBatch("regions", list(job.tasks.values()), [job])
        source = FakeSource()
        served = source.make(CARS)
        served.open()
        served.classify(merged)
        served.close()
        self.runner.offer(merged, "regions@1")

    async def records(self) -> list[ShadowRecord]:
        end = (await self.log.ends(SHADOW))[0]
        return [decode(ShadowRecord, r.value) async for r in self.log.read(SHADOW, 0, 0, end)]

    async def written(self, count: int) -> list[ShadowRecord]:
        """Return the first records once ``count`` of them are written."""
        async with asyncio.timeout(60):
            while len(found := await self.records()) < count:
                await asyncio.sleep(0.01)
        return found

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not condition():
                await asyncio.sleep(0.01)

    def frames(self, outcome: str) -> float:
        labels = {"pipeline": "regions", "outcome": outcome}
        return self.registry.get_sample_value("sightline_engine_shadow_frames_total", labels) or 0.0

    def off(self) -> float | None:
        return self.registry.get_sample_value("sightline_engine_shadow_off", {"pipeline": "regions"})

    async def close(self) -> None:
        if self.task:
            self.task.cancel()
            await asyncio.wait({self.task})
        await self.runner.close()


def shadow_bench(stack: AsyncExitStack, **engines: FakeEngine) -> ShadowBench:
    bench = ShadowBench(**engines)
    stack.push_async_callback(bench.close)
    return bench


async def test_a_shadow_candidate_is_compared_with_the_served_model(stack: AsyncExitStack) -> None:
    bench = shadow_bench(stack, v2=NextLabelEngine())
    await bench.start()
    bench.offer(0)
    (written,) = await bench.written(1)
    assert (str(written.frame), written.served, written.candidate) == ("a/7/0", "regions@1", "regions@2")
    assert [(d.form, d.label, d.other_label) for d in written.differences] == [("label", "car", "truck")]
    assert (bench.frames("differ"), bench.frames("agree")) == (1, 0)


async def test_a_shadow_candidate_with_equal_detections_agrees_with_the_served_model(stack: AsyncExitStack) -> None:
    bench = shadow_bench(stack, v2=FakeEngine())
    await bench.start()
    bench.offer(0, 1)
    assert [(r.seq, r.agreed, r.differences) for r in await bench.written(2)] == [
        (0, {"car": 1}, ()),
        (1, {"car": 1}, ()),
    ]
    assert bench.frames("agree") == 2


async def test_a_shadow_candidate_runs_only_on_an_idle_node_and_skips_frames_beyond_its_queue(
    stack: AsyncExitStack,
) -> None:
    bench = shadow_bench(stack, v2=FakeEngine())
    busy = True
    bench.runner.busy = lambda: busy
    await bench.start()
    bench.offer(*range(QUEUED_FRAMES + 3))
    await bench.until(lambda: bench.frames("skipped") == 3)
    assert await bench.records() == []
    busy = False
    assert [r.seq for r in await bench.written(QUEUED_FRAMES)] == list(range(QUEUED_FRAMES))


async def test_frames_beyond_the_maximum_size_of_the_shadow_queue_are_skipped_until_the_queue_is_empty(
    stack: AsyncExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shadow, "QUEUED_BYTES", 2 * 64 * 64 * 3)
    bench = shadow_bench(stack, v2=FakeEngine())
    await bench.start()
    for first in (0, 10):
        bench.offer(first, first + 1, first + 2)
        await bench.until(lambda: not bench.runner._frames)
    assert bench.frames("skipped") == 2
    assert [r.seq for r in await bench.written(4)] == [0, 1, 10, 11]


async def test_a_shadow_share_of_zero_compares_no_frame(stack: AsyncExitStack) -> None:
    bench = shadow_bench(stack, v2=FakeEngine())
    await bench.start(REGIONS.model_copy(update={"shadow_share": 0.0}))
    bench.offer(0, 1, 2)
    assert not bench.runner._frames


async def test_successive_failures_switch_a_shadow_candidate_off_until_the_candidate_changes(
    stack: AsyncExitStack,
) -> None:
    bench = shadow_bench(stack, v2=FakeEngine(fails=lambda image: bool(image[0, 0, 0] == 9)), v3=FakeEngine())
    await bench.start()
    bench.offer(*range(FAILURES - 1), first_pixel=9)
    bench.offer(10)
    bench.offer(*range(20, 20 + FAILURES), first_pixel=9)
    compared, end = await bench.written(2)
    assert compared.seq == 10
    assert end.frame is None
    assert end.off.startswith(f"{FAILURES} frames in a row failed")
    assert bench.off() == 1
    bench.offer(30)
    assert not bench.runner._frames
    bench.runner.want([REGIONS.model_copy(update={"shadow": "regions@3"})])
    await bench.until(lambda: bench.runner._models._serving["regions"].settings.version == "regions@3")
    bench.offer(40)
    assert (await bench.written(3))[2].candidate == "regions@3"
    assert bench.off() == 0


@pytest.mark.parametrize("error", [DeviceLost("gone"), MemoryError()])
async def test_a_lost_device_or_full_memory_switches_a_shadow_candidate_off_immediately(
    error: Exception, stack: AsyncExitStack
) -> None:
    def fails(image: Images) -> bool:
        if image[0, 0, 0] == 9:
            raise error
        return False

    bench = shadow_bench(stack, v2=FakeEngine(fails=fails))
    await bench.start()
    bench.offer(0, first_pixel=9)
    (end,) = await bench.written(1)
    assert end.off in ("gone", "MemoryError()")
    assert bench.frames("failed") == 1


async def test_a_shadow_candidate_that_does_not_load_is_reported_once_with_its_reason(stack: AsyncExitStack) -> None:
    bench = shadow_bench(stack)
    await bench.start()
    for _ in range(2):
        bench.runner._models._refused.clear()
        bench.runner._models._changed.set()
        await bench.until(lambda: bool(bench.runner._models._refused))
    (end,) = await bench.written(1)
    assert (end.candidate, end.off) == ("regions@2", "regions@2 is broken")


async def test_a_pipeline_with_a_new_broken_shadow_candidate_is_no_longer_compared_with_the_old_candidate(
    stack: AsyncExitStack,
) -> None:
    bench = shadow_bench(stack, v2=FakeEngine())
    await bench.start()
    bench.offer(0)
    await bench.written(1)
    bench.runner.want([REGIONS.model_copy(update={"shadow": "regions@3"})])
    bench.offer(1)
    _, end = await bench.written(2)
    assert (end.candidate, end.off) == ("regions@3", "regions@3 is broken")
    bench.offer(2)
    assert not bench.runner._frames
    assert bench.off() == 1


async def test_a_shadow_comparison_that_cannot_be_written_is_lost_without_an_error(stack: AsyncExitStack) -> None:
    bench = shadow_bench(stack, v2=FakeEngine())
    writes = 0

    async def produce(_: Outgoing) -> Position:
        nonlocal writes
        writes += 1
        raise LogUnavailable("gone")

    bench.runner._produce = produce
    await bench.start()
    bench.offer(0, 1)
    await bench.until(lambda: writes == 2)
    assert bench.task is not None
    assert not bench.task.done()


@pytest.mark.parametrize("candidate", [NextLabelEngine(), FakeEngine(fails=lambda image: image.any())])
async def test_a_node_writes_only_results_of_the_served_model_and_none_of_its_shadow_candidate(
    candidate: FakeEngine, stack: AsyncExitStack
) -> None:
    bench = shadow_bench(stack, v2=candidate)
    log, intake = bench.log, FakeIntake()
    live = LiveModels(FakeSource(), NodeMetrics(CollectorRegistry()), lambda: 0.0)
    await configured(live, [REGIONS])
    node = Node(log, intake, live, concurrency=1, metrics=bench.metrics, shadow=bench.runner)
    await bench.start()
    async with running(node, intake, ONE):
        for offset in range(5):
            intake.fetched.put_nowait([record([item(offset)], offset=offset)])
        await bench.written(1)
        await until_written(log, RESULTS, 5)
    results = [decode(Result, r.value) async for r in log.read(RESULTS, 0, 0, 5)]
    assert [(r.seq, r.model, [d.label for d in r.detections]) for r in results] == [
        (seq, "regions@1", ["car"]) for seq in range(5)
    ]
    assert await log.ends(DEADLETTER) == {0: 0}
    await live.close()


class StuckEngine(FakeEngine):
    """Engine whose caller waits at each batch until ``may_go_on`` is set.

    ``callers`` has the name of each thread that submitted a batch.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits, self.may_go_on = threading.Event(), threading.Event()
        self.may_go_on.set()
        self.callers: set[str] = set()

    def submit(self, slot: Slot, rows: int) -> None:
        self.callers.add(threading.current_thread().name)
        if not self.may_go_on.is_set():
            self.waits.set()
            assert self.may_go_on.wait(60)
        super().submit(slot, rows)


async def test_a_node_writes_results_while_a_shadow_candidate_computes(stack: AsyncExitStack) -> None:
    engine, source, intake, busy = StuckEngine(), FakeSource(), FakeIntake(), list[bool]()
    bench = shadow_bench(stack, v2=engine)
    live = LiveModels(source, NodeMetrics(CollectorRegistry()), lambda: 0.0)
    await configured(live, [REGIONS])
    source.on_image = lambda: busy.append(bench.runner.busy())
    node = Node(bench.log, intake, live, concurrency=1, metrics=bench.metrics, shadow=bench.runner)
    await bench.start()
    engine.may_go_on.clear()
    async with running(node, intake, ONE):
        intake.fetched.put_nowait([record([item(0)], offset=0)])
        assert await asyncio.to_thread(engine.waits.wait, 60)
        intake.fetched.put_nowait([record([item(1)], offset=1)])
        await until_written(bench.log, RESULTS, 2)
        assert (await bench.records(), bench.frames("failed")) == ([], 0)
        engine.may_go_on.set()
        assert [written.seq for written in await bench.written(2)] == [0, 1]
    assert busy == [True, True]
    assert not bench.runner.busy()
    assert all(name.startswith("shadow") for name in engine.callers), engine.callers
    await live.close()


@pytest.mark.skipif(sys.platform != "linux", reason="threads have priorities of their own on Linux only")
def test_the_threads_of_shadow_candidates_have_the_lowest_priority() -> None:
    def child_priority() -> int:
        found: list[int] = []
        thread = threading.Thread(
            target=lambda: found.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        )
        thread.start()
        thread.join()
        return found[0]

    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    with ThreadPoolExecutor(1, initializer=lower_priority) as pool:
        assert pool.submit(child_priority).result() == LOWEST_PRIORITY
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == before
