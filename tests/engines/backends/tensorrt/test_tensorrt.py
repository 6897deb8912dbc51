"""Tests of the TensorRT engine on the fakes: plans, errors, graphs and memory. Nothing here runs on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from engines.backends.tensorrt.builder import BuildControl, BuildProgress
from engines.backends.tensorrt.device import GpuDevice
from engines.backends.tensorrt.engine import SLOTS, TensorRtEngine
from engines.backends.tensorrt.gputhread import GpuThread
from engines.backends.tensorrt.hotsizes import GRAPH_RUNS, HALVE_EVERY, HotSizes
from engines.exceptions import BuildCancelled, DeviceLost, GpuError, InferenceFailed, ModelLoadFailed
from engines.repository.manifest import Model
from engines.repository.store import Repository
from ingest.site.pipeline import Precision
from tests.engines.backends.tensorrt.fakedevice import GARBAGE
from tests.engines.backends.tensorrt.faketensorrt import SCRATCH_BYTES
from tests.engines.backends.tensorrt.rig import FakeRig, make_rig
from tests.paths import MODELS


@pytest.fixture
def model() -> Model:
    return Repository(MODELS).open("regions")


@pytest.fixture
def engine(rig: FakeRig, model: Model) -> TensorRtEngine:
    engine = rig.engine()
    engine.load(model)
    return engine


def images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 64, 64, 3), np.uint8)


def load_refused(engine: TensorRtEngine, model: Model, match: str) -> None:
    with pytest.raises(ModelLoadFailed, match=match):
        engine.load(model)


class TestPlans:
    def test_the_tensorrt_plan_of_a_model_is_built_once_for_all_engines(
        self, rig: FakeRig, engine: TensorRtEngine, model: Model
    ) -> None:
        other = rig.engine()
        other.load(model)
        assert rig.trt.builds == 1
        np.testing.assert_array_equal(*(e.infer(images(3))["probabilities"] for e in (engine, other)))

    @pytest.mark.parametrize("other", [{"version": "11.4.0"}, {"capability": (8, 7)}], ids=["version", "capability"])
    def test_another_tensorrt_version_or_gpu_type_gets_a_plan_of_its_own(
        self, other: dict[str, object], rig: FakeRig, engine: TensorRtEngine, model: Model
    ) -> None:
        second = make_rig(rig.plans.folder, **other)  # type: ignore[arg-type]
        second.engine().load(model)
        second.thread.close()
        assert (rig.trt.builds, second.trt.builds) == (1, 1)
        assert len(list(rig.plans.folder.glob("*.plan"))) == 2

    def test_a_model_with_a_changed_batch_limit_gets_a_tensorrt_plan_of_its_own(
        self, rig: FakeRig, engine: TensorRtEngine, model: Model
    ) -> None:
        rig.engine().load(Model(model.manifest.model_copy(update={"max_batch": 8}), model.folder))
        assert rig.trt.builds == 2

    def test_the_incomplete_plan_of_a_killed_process_is_deleted(
        self, rig: FakeRig, engine: TensorRtEngine, model: Model
    ) -> None:
        (plan,) = rig.plans.folder.glob("*.plan")
        plan.with_name(f".{plan.name}.4711.part").write_bytes(b"half")
        other = plan.with_name(".other.plan.4711.part")
        other.write_bytes(b"of a build that may be running")
        rig.engine().load(model)
        assert list(rig.plans.folder.glob(".*.part")) == [other]

    @pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda _: b"", lambda data: data[:50] + b"x" * 50])
    def test_a_damaged_tensorrt_plan_is_built_again(
        self, damage: Callable[[bytes], bytes], rig: FakeRig, engine: TensorRtEngine, model: Model
    ) -> None:
        path = next(rig.plans.folder.glob("*.plan"))
        path.write_bytes(damage(path.read_bytes()))
        rig.engine().load(model)
        rig.engine().load(model)
        assert rig.trt.builds == 2

    def test_a_cached_plan_that_tensorrt_refuses_is_built_again(
        self, rig: FakeRig, engine: TensorRtEngine, model: Model, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(type(rig.trt), "built_for", "the same version with another patch")
        rig.engine().load(model)
        assert rig.trt.builds == 2

    @pytest.mark.parametrize(("precision", "cleared"), [("fp32", ["TF32"]), ("fp16", [])])
    def test_tensorfloat_is_used_only_if_the_precision_allows_it(
        self, precision: Precision, cleared: list[str], rig: FakeRig, model: Model
    ) -> None:
        rig.engine().load(model.at_precision(precision))
        assert rig.trt.cleared == cleared

    def test_tensorrt_plans_are_readable_only_by_their_user(self, rig: FakeRig, engine: TensorRtEngine) -> None:
        assert rig.plans.folder.stat().st_mode & 0o077 == 0
        assert all(path.stat().st_mode & 0o077 == 0 for path in rig.plans.folder.glob("*.plan"))

    def test_the_build_of_a_tensorrt_plan_reports_its_progress(self, rig: FakeRig, model: Model) -> None:
        seen: list[BuildProgress] = []
        rig.engine(BuildControl(seen.append)).load(model)
        assert seen == [BuildProgress("Building", step, 3) for step in range(4)]

    def test_a_cancelled_plan_build_ends_after_its_current_step_and_stores_no_plan(
        self, rig: FakeRig, model: Model
    ) -> None:
        control = BuildControl(lambda progress: control.cancel() if progress.step == 1 else None)
        engine = rig.engine(control)
        with pytest.raises(BuildCancelled, match="regions@1"):
            engine.load(model)
        assert not list(rig.plans.folder.glob("*.plan"))

    def test_an_error_of_the_progress_callback_does_not_end_a_plan_build(self, rig: FakeRig, model: Model) -> None:
        rig.engine(BuildControl(lambda _: 1 // 0)).load(model)
        assert rig.trt.builds == 1


class TestRefusedModels:
    def test_a_missing_gpu_is_reported_before_any_tensorrt_object_is_made(
        self, rig: FakeRig, model: Model, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rig.reason = "no NVIDIA driver"
        monkeypatch.setattr(rig.trt, "Runtime", lambda _: pytest.fail("a runtime was made"), raising=False)
        monkeypatch.setattr(rig.trt, "Builder", lambda _: pytest.fail("a builder was made"), raising=False)
        load_refused(rig.engine(), model, "regions@1: no NVIDIA driver")

    def test_the_error_for_an_invalid_model_file_has_its_name_and_the_parser_errors(
        self, rig: FakeRig, model: Model, tmp_path: Path
    ) -> None:
        (tmp_path / "model.onnx").write_bytes(b"no model")
        load_refused(rig.engine(), Model(model.manifest, tmp_path), r"model\.onnx: TensorRT cannot parse it: .*pars")

    def test_the_error_for_a_missing_model_file_names_the_file(
        self, rig: FakeRig, model: Model, tmp_path: Path
    ) -> None:
        load_refused(rig.engine(), Model(model.manifest, tmp_path), r"No such file .*model\.onnx")

    def test_a_model_whose_input_name_differs_from_its_manifest_is_refused(self, rig: FakeRig, model: Model) -> None:
        spec = model.manifest.input.model_copy(update={"name": "pixels"})
        renamed = Model(model.manifest.model_copy(update={"input": spec}), model.folder)
        load_refused(rig.engine(), renamed, "expected one uint8 input pixels")

    def test_the_error_of_a_failed_plan_build_quotes_the_last_errors_of_tensorrt(
        self, rig: FakeRig, model: Model
    ) -> None:
        rig.trt.fail_build = True
        load_refused(rig.engine(), model, "TensorRT cannot build it: .*no implementation for a node")

    def test_a_model_larger_than_the_free_gpu_memory_is_refused_with_both_sizes(
        self, rig: FakeRig, model: Model
    ) -> None:
        rig.gpu.total_bytes = 1 << 20
        load_refused(rig.engine(), model, r"3 batches of 32 need \d+ MiB, and fake GPU has 1 MiB free")
        assert not rig.gpu.heap

    def test_if_gpu_memory_runs_out_at_a_batch_slot_the_earlier_slots_are_freed(
        self, rig: FakeRig, model: Model
    ) -> None:
        rig.trt.contexts_left = 2
        engine = rig.engine()
        load_refused(engine, model, "createExecutionContext: out of memory")
        assert not rig.gpu.heap
        assert not rig.trt.alive
        rig.trt.contexts_left = 3
        engine.load(model)


class TestBatches:
    def test_all_batch_slots_can_be_in_flight_before_the_first_is_collected(
        self, rig: FakeRig, engine: TensorRtEngine
    ) -> None:
        slots = [engine.acquire() for _ in range(SLOTS)]
        for slot in slots:
            engine.submit(slot, 4)
        rig.thread.call(lambda: None)  # all submitted work has been started
        assert [len(stream.queue) for stream in rig.gpu.streams.values()] == [4] * SLOTS
        for slot in slots:
            engine.collect(slot)
            engine.release(slot)

    def test_gpu_outputs_are_invalid_before_the_cuda_event_of_their_batch(
        self, rig: FakeRig, engine: TensorRtEngine
    ) -> None:
        with engine.slot() as slot:
            slot.pixels[:2] = images(2)
            engine.submit(slot, 2)
            rig.thread.call(lambda: None)
            early = slot.work.outputs(2)["probabilities"].copy()  # type: ignore[attr-defined]
            late = engine.collect(slot)["probabilities"]
        assert (early.view(np.uint8) == GARBAGE).all()
        np.testing.assert_allclose(late.sum(1), 1.0, atol=1e-5)

    def test_all_copies_to_and_from_the_gpu_use_pinned_memory(self, rig: FakeRig, engine: TensorRtEngine) -> None:
        engine.warm_up()
        assert rig.gpu.pageable_copies == 0

    def test_a_batch_that_tensorrt_refuses_fails_without_affecting_other_batches(
        self, rig: FakeRig, engine: TensorRtEngine
    ) -> None:
        expected = engine.infer(images(2))
        rig.trt.refuse_next = 1
        with pytest.raises(InferenceFailed, match="a layer failed"):
            engine.infer(images(2))
        np.testing.assert_array_equal(engine.infer(images(2))["probabilities"], expected["probabilities"])

    def test_after_a_fatal_cuda_error_every_engine_of_the_gpu_raises_device_lost(
        self, rig: FakeRig, engine: TensorRtEngine, model: Model
    ) -> None:
        other = rig.engine()
        other.load(model)
        address = next(iter(rig.gpu.heap))
        del rig.gpu.heap[address]  # the next kernel of the first slot reads it
        with pytest.raises(DeviceLost, match="fake GPU: an illegal memory access"):
            engine.infer(images(1))
        for each in (engine, other):
            with pytest.raises(DeviceLost, match="an illegal memory access"):
                each.infer(images(1))
            each.close()

    def test_an_inference_error_has_no_exception_context_that_refers_to_gpu_objects(
        self, rig: FakeRig, engine: TensorRtEngine
    ) -> None:
        rig.trt.refuse_next = 1
        with pytest.raises(InferenceFailed) as caught:
            engine.infer(images(1))
        assert caught.value.__context__ is None


class TestGraphs:
    def run(self, engine: TensorRtEngine, rows: int, times: int) -> None:
        expected = engine.infer(images(rows))["probabilities"]
        for _ in range(times):
            np.testing.assert_array_equal(engine.infer(images(rows))["probabilities"], expected)

    def graphs(self, engine: TensorRtEngine) -> list[list[int]]:
        return [slot.work.graphs for slot in engine._gpu_slots]

    def test_the_two_most_frequent_batch_sizes_run_as_cuda_graphs_with_unchanged_outputs(
        self, rig: FakeRig, engine: TensorRtEngine
    ) -> None:
        for rows, times in ((4, 120), (9, 100), (2, 80)):
            self.run(engine, rows, times)
        self.run(engine, 4, 20)
        self.run(engine, 9, 20)
        assert self.graphs(engine) == [[4, 9]] * SLOTS
        assert rig.gpu.launches > 0

    def test_warm_up_captures_no_cuda_graph(self, rig: FakeRig, engine: TensorRtEngine) -> None:
        engine.warm_up()
        assert self.graphs(engine) == [[]] * SLOTS

    def test_a_batch_size_that_cuda_cannot_capture_runs_without_a_cuda_graph(
        self, rig: FakeRig, engine: TensorRtEngine
    ) -> None:
        rig.gpu.can_capture = False
        self.run(engine, 4, 3 * GRAPH_RUNS)
        assert rig.gpu.launches == 0

    def test_a_batch_size_runs_without_a_cuda_graph_if_the_graph_does_not_fit_into_memory(
        self, rig: FakeRig, engine: TensorRtEngine
    ) -> None:
        rig.trt.contexts_left = 0
        self.run(engine, 4, 3 * GRAPH_RUNS)
        assert rig.gpu.launches == 0

    def test_a_change_of_the_frequent_batch_sizes_replaces_the_cuda_graphs(
        self, rig: FakeRig, engine: TensorRtEngine
    ) -> None:
        self.run(engine, 4, 2 * GRAPH_RUNS)
        for rows in (1, 2):
            self.run(engine, rows, 5 * GRAPH_RUNS)
        self.run(engine, 1, 20)
        self.run(engine, 2, 20)
        assert self.graphs(engine) == [[1, 2]] * SLOTS
        assert len(rig.gpu.graphs) == 2 * SLOTS


class TestHotSizes:
    def test_batch_sizes_with_similar_frequencies_keep_their_cuda_graphs(self) -> None:
        hot = HotSizes()
        for _ in range(GRAPH_RUNS):
            hot.note(4)
            hot.note(8)
        chosen = []
        for _ in range(10 * GRAPH_RUNS):
            for rows in (4, 8, 16):
                hot.note(rows)
            chosen.append(hot.sizes)
        assert set(chosen) == {frozenset({4, 8})}

    def test_batch_sizes_that_are_no_longer_frequent_lose_their_cuda_graphs(self) -> None:
        hot = HotSizes()
        for _ in range(HALVE_EVERY):
            hot.note(4)
        for _ in range(HALVE_EVERY):
            hot.note(1)
            hot.note(2)
        assert hot.sizes == {1, 2}


class TestMemory:
    def test_the_reported_gpu_memory_equals_the_memory_allocated_for_the_batch_slots(
        self, rig: FakeRig, engine: TensorRtEngine
    ) -> None:
        memory = engine.memory
        assert memory.slots_bytes == sum(array.nbytes for array in rig.gpu.heap.values()) > SLOTS * SCRATCH_BYTES
        assert memory.pinned_bytes == sum(array.nbytes for array in rig.gpu.pinned)
        assert memory.plan_bytes > 0

    def test_closing_a_tensorrt_engine_frees_its_memory_and_the_engine_can_load_again(
        self, rig: FakeRig, engine: TensorRtEngine, model: Model
    ) -> None:
        for _ in range(3 * GRAPH_RUNS):
            engine.infer(images(4))
        assert rig.gpu.graphs
        engine.close()
        assert (rig.gpu.heap, rig.gpu.graphs, len(rig.trt.alive)) == ({}, set(), 0)
        assert engine.memory == (0, 0, 0)
        engine.load(model)
        engine.infer(images(1))

    def test_a_gpu_thread_frees_the_memory_of_its_engines_when_it_ends(
        self, rig: FakeRig, engine: TensorRtEngine
    ) -> None:
        rig.thread.close()
        rig.thread.close()
        assert rig.gpu.closed
        assert not rig.gpu.heap
        with pytest.raises(DeviceLost, match="has ended"):
            rig.thread.call(rig.gpu.memory)
        engine.close()


class TestThread:
    def test_a_gpu_that_cannot_be_opened_is_reported(self) -> None:
        def refuse() -> GpuDevice:
            raise GpuError("cuDevicePrimaryCtxRetain failed: out of memory")

        with pytest.raises(GpuError, match="PrimaryCtxRetain"):
            GpuThread(refuse)

    def test_only_the_gpu_thread_can_start_work_and_other_threads_can_wait_for_events(self, rig: FakeRig) -> None:
        with pytest.raises(GpuError, match="invalid device context"):
            rig.gpu.memory()
        event = rig.thread.call(rig.gpu.event)
        rig.thread.wait(event)

    def test_an_error_in_work_of_the_gpu_thread_reaches_the_caller(self, rig: FakeRig) -> None:
        with pytest.raises(ZeroDivisionError):
            rig.thread.call(lambda: 1 // 0)
