"""A fake of NVIDIA's module ``pynvml``. It has the names that the product uses, with the real signatures."""

from __future__ import annotations

from types import SimpleNamespace


class FakeNvmlError(Exception):
    pass


class FakeNvml:
    """Two GPUs. The second does not report its temperature. GPUs in ``lost`` do not answer."""

    NVMLError = FakeNvmlError
    NVML_TEMPERATURE_GPU = 0

    def __init__(self, error: str = "") -> None:
        self._error = error
        self.lost: set[int] = set()
        self.started = 0

    def nvmlInit(self) -> None:
        if self._error:
            raise FakeNvmlError(self._error)
        self.started += 1

    def nvmlShutdown(self) -> None:
        self.started -= 1

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        if index in self.lost:
            raise FakeNvmlError("GPU is lost")
        return index

    def nvmlDeviceGetName(self, handle: int) -> str:
        return f"NVIDIA H{handle}"

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> SimpleNamespace:
        return SimpleNamespace(gpu=40 + handle, memory=3)

    def nvmlDeviceGetMemoryInfo(self, handle: int, version: int | None = None) -> SimpleNamespace:
        return SimpleNamespace(total=16 << 30, free=15 << 30, used=1 << 30)

    def nvmlDeviceGetTemperature(self, handle: int, sensor: int) -> int:
        if handle == 1:
            raise FakeNvmlError("Not Supported")
        return 51
