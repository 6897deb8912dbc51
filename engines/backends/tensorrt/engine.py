"""The TensorRT backend.

The backend has not run on a GPU yet: its tests run on a fake device and a fake ``tensorrt`` module.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from engines.backends.tensorrt.builder import BuildControl, build, make_logger
from engines.backends.tensorrt.gputhread import GpuThread, gpu_thread
from engines.backends.tensorrt.hotsizes import HotSizes
from engines.backends.tensorrt.loadedplan import LoadedPlan, deserialise
from engines.backends.tensorrt.plans import BuildOptions, PlanCache, PlanKey, default_folder
from engines.backends.tensorrt.probe import load_tensorrt, unavailable_reason
from engines.backends.tensorrt.slotwork import SlotWork
from engines.engine import Engine, Outputs, Slot
from engines.exceptions import GpuError, InferenceFailed, ModelLoadFailed
from engines.repository.manifest import Model, sha256_of
from ingest.runtime import logs

T = TypeVar("T")

_log = logs.get("engines.backends.tensorrt.engine")

SLOTS = 3
"""Number of batch slots. With three slots, the GPU copies one batch in, computes a second and copies a third out at
the same time."""
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class GpuPlatform:
    """Functions that give access to TensorRT and to the GPUs. Tests pass an object with fake functions."""

    reason: Callable[[], str] = unavailable_reason
    tensorrt: Callable[[], Any] = load_tensorrt
    thread: Callable[[int], GpuThread] = gpu_thread


class EngineMemory(NamedTuple):
    """Memory that a loaded engine uses, in bytes: the plan, the GPU buffers of all slots, and pinned host memory.

    ``plan_bytes`` is the size of the compiled model (plan), which contains the weights.
    """

    plan_bytes: int
    slots_bytes: int
    pinned_bytes: int


class TensorRtSlot(Slot):
    """A batch slot whose pixels are in pinned memory, with the GPU buffers and the stream of its batch."""

    def __init__(self, work: SlotWork) -> None:
        super().__init__(work.pixels)
        self.work = work
        self.started: Future[None] | None = None


class TensorRtEngine(Engine):
    """Engine that computes on one GPU. ``load`` compiles the model to a TensorRT plan, unless the cache has the plan.

    The build of a plan takes minutes. ``control`` reports the progress of the build, and can cancel the build. All
    CUDA calls run in the GPU's own thread, except that the thread that collects a batch waits for the batch's event.
    ``workers`` has no effect, because it is the thread count of CPU backends.
    """

    def __init__(
        self,
        workers: int = 1,
        device: int = 0,
        plans: PlanCache | None = None,
        control: BuildControl | None = None,
        platform: GpuPlatform | None = None,
    ) -> None:
        super().__init__(SLOTS)
        self._index = device
        self._plans = plans or PlanCache(default_folder())
        self._control = control or BuildControl(_log_progress)
        self._platform = platform or GpuPlatform()
        self._hot = HotSizes()
        self._gpu: GpuThread | None = None
        self._plan: LoadedPlan | None = None
        self._plan_bytes = 0
        self._gpu_slots: list[TensorRtSlot] = []

    @property
    def memory(self) -> EngineMemory:
        """Memory that the loaded model uses on the GPU and in pinned host memory."""
        memory = [slot.work.memory for slot in self._gpu_slots]
        return EngineMemory(
            self._plan_bytes, sum(one.device_bytes for one in memory), sum(one.pinned_bytes for one in memory)
        )

    def needs_build(self, model: Model) -> bool:
        """Return whether ``load`` must build a plan, because the cache has none for this model and GPU."""
        if self._platform.reason():
            return False  # load raises this reason
        try:
            key = self._key(self._platform.tensorrt(), self._platform.thread(self._index), model)
        except (GpuError, OSError):
            return False  # load raises this error
        return self._plans.read(key) is None

    def cancel_build(self) -> None:
        """Cancel the build of a plan, which ends after TensorRT's current step."""
        self._control.cancel()

    def _load_impl(self, model: Model) -> None:
        reason = self._platform.reason()
        if reason:
            raise ModelLoadFailed(f"model {model.manifest.id}: {reason}")
        trt = self._platform.tensorrt()
        try:
            self._gpu = self._platform.thread(self._index)
        except GpuError as error:
            raise ModelLoadFailed(f"model {model.manifest.id}: GPU {self._index}: {error}") from None
        self._gpu.enter(self._unload)
        try:
            self._load_plan(trt, self._gpu, model)
        except BaseException:
            self._close_impl()
            raise

    def _load_plan(self, trt: Any, gpu: GpuThread, model: Model) -> None:
        logger = make_logger(trt)
        try:
            key = self._key(trt, gpu, model)
            with self._plans.building(key, lambda: self._control.cancelled):
                plan = self._plans.read(key)
                if plan is None or not self._deserialise(trt, logger, plan, model):
                    plan = self._build(trt, logger, gpu, key, model)
                    if not self._deserialise(trt, logger, plan, model):
                        raise ModelLoadFailed(
                            f"model {model.manifest.id}: TensorRT refuses its own plan: {logger.recent()}"
                        )
        except OSError as error:
            raise ModelLoadFailed(
                f"model {model.manifest.id}: {error}: expected a readable model and a writable folder "
                f"{self._plans.folder}. To use another folder, set SIGHTLINE_HOME"
            ) from None
        self._plan_bytes = len(plan)
        self._require_memory(gpu, model)

    def _key(self, trt: Any, gpu: GpuThread, model: Model) -> PlanKey:
        """Return the key of the model's plan in the cache. Raise OSError if the model file cannot be read."""
        manifest = model.manifest
        options = BuildOptions(manifest.max_batch, manifest.max_batch, tf32=manifest.precision != "fp32")
        return PlanKey(sha256_of(model.path), trt.__version__, gpu.device.compute_capability, options)

    def _build(self, trt: Any, logger: Any, gpu: GpuThread, key: PlanKey, model: Model) -> bytes:
        """Build a plan in the calling thread, so that the GPU's thread can serve other models during the build."""
        _log.info("plan_build_started", model=model.manifest.id, device=gpu.device.name)
        with gpu.device.current():
            built = build(trt, logger, model, key.options, self._plans.timings(key), self._control)
        self._plans.write(key, built.plan)
        self._plans.write_timings(key, built.timings)
        _log.info("plan_build_finished", model=model.manifest.id, plan_bytes=len(built.plan))
        return built.plan

    def _deserialise(self, trt: Any, logger: Any, plan: bytes, model: Model) -> bool:
        self._plan = self._on_gpu(model, lambda: deserialise(trt, logger, plan, model))
        return self._plan is not None

    def _require_memory(self, gpu: GpuThread, model: Model) -> None:
        """Raise ModelLoadFailed if the slots do not fit into the free memory of the device."""
        plan = self._plan
        assert plan is not None  # noqa: S101  (narrows the type)
        row_bytes = plan.input.row_bytes + sum(spec.row_bytes for spec in plan.outputs)
        needed = SLOTS * (model.manifest.max_batch * row_bytes + plan.scratch_bytes)
        free = self._on_gpu(model, gpu.device.memory).free_bytes
        if needed > free:
            raise ModelLoadFailed(
                f"model {model.manifest.id}: {SLOTS} batches of {model.manifest.max_batch} need {needed // MIB} MiB, "
                f"and {gpu.device.name} has {free // MIB} MiB free. Lower max_batch in {model.folder}/model.toml"
            )

    def _make_slot(self, shape: tuple[int, int, int, int]) -> Slot:
        gpu, plan = self._gpu, self._plan
        assert gpu is not None  # noqa: S101  (narrows the type: load has set it)
        assert plan is not None  # noqa: S101
        try:
            work = gpu.call(lambda: SlotWork(gpu.device, plan, self._hot, shape))
        except InferenceFailed as error:
            text = str(error)
        else:
            slot = TensorRtSlot(work)
            self._gpu_slots.append(slot)
            return slot
        self._close_impl()
        raise ModelLoadFailed(f"GPU {gpu.device.name}: the buffers of {SLOTS} batches cannot be allocated: {text}")

    def _submit_impl(self, slot: Slot) -> None:
        assert isinstance(slot, TensorRtSlot)  # noqa: S101  (narrows the type)
        assert self._gpu is not None  # noqa: S101
        work, rows = slot.work, slot.rows
        slot.started = self._gpu.start(lambda: work.start(rows))

    def _collect_impl(self, slot: Slot) -> Outputs:
        assert isinstance(slot, TensorRtSlot)  # noqa: S101  (narrows the type)
        assert self._gpu is not None  # noqa: S101
        assert slot.started is not None  # noqa: S101
        started, slot.started = slot.started, None
        started.result()
        self._gpu.wait(slot.work.event)
        return slot.work.outputs(slot.rows)

    def _on_gpu(self, model: Model, work: Callable[[], T]) -> T:
        assert self._gpu is not None  # noqa: S101  (narrows the type)
        try:
            return self._gpu.call(work)
        except InferenceFailed as error:
            text = str(error)
        raise ModelLoadFailed(f"model {model.manifest.id} on {self._gpu.device.name}: {text}")

    def _unload(self) -> None:
        """Free the model's GPU memory and pinned memory. This method must run in the GPU thread."""
        slots, self._gpu_slots = self._gpu_slots, []
        plan, self._plan, self._plan_bytes = self._plan, None, 0
        try:
            for slot in slots:
                slot.pixels = slot.pixels[:0].copy()  # pinned memory must be freed in this thread
                slot.work.close()
        finally:
            if plan is not None:
                plan.close()

    def _close_impl(self) -> None:
        if self._gpu is not None:
            self._gpu.leave(self._unload)
        self._gpu = None


def _log_progress(progress: object) -> None:
    _log.debug("plan_build_progress", progress=progress)
