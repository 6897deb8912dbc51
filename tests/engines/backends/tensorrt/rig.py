"""A TensorRT engine on the fakes, for tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from engines.backends.tensorrt.builder import BuildControl
from engines.backends.tensorrt.engine import GpuPlatform, TensorRtEngine
from engines.backends.tensorrt.gputhread import GpuThread
from engines.backends.tensorrt.plans import PlanCache
from tests.engines.backends.tensorrt.fakedevice import FakeDevice
from tests.engines.backends.tensorrt.faketensorrt import FakeTensorRt


@dataclass
class FakeRig:
    """A fake GPU with its thread, its ``tensorrt`` module and a folder of plans."""

    thread: GpuThread
    gpu: FakeDevice
    trt: FakeTensorRt
    plans: PlanCache
    reason: str = ""

    def engine(self, control: BuildControl | None = None) -> TensorRtEngine:
        """Return a new engine, which has not loaded a model."""
        platform = GpuPlatform(lambda: self.reason, lambda: self.trt, lambda _: self.thread)
        return TensorRtEngine(plans=self.plans, control=control, platform=platform)


def make_rig(folder: Path, version: str = "10.15.1.29", capability: tuple[int, int] = (9, 0)) -> FakeRig:
    """Return a rig whose plans are in ``folder``. Close the rig's thread at the end."""
    thread = GpuThread(lambda: FakeDevice(capability=capability))
    gpu = thread.device
    assert isinstance(gpu, FakeDevice)
    return FakeRig(thread, gpu, FakeTensorRt(gpu, version), PlanCache(folder))
