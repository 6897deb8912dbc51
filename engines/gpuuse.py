"""Use of NVIDIA GPUs, read through NVML: utilisation, memory and temperature.

The Python module ``pynvml`` comes from the package ``nvidia-ml-py``, which the extra ``tensorrt`` installs. This code
has not yet run on a GPU: its tests use a fake ``pynvml``.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class GpuUse:
    """Use of one GPU at one moment. A figure that the GPU does not report is None."""

    index: int
    """Number of the GPU in NVML, which ``CUDA_VISIBLE_DEVICES`` does not change."""
    name: str
    utilisation: float | None
    """Fraction of the driver's last sampling period during which a GPU kernel ran, 0..1. The driver chooses a
    sampling period of 1/6 s to 1 s."""
    memory_used_bytes: int | None
    memory_total_bytes: int | None
    temperature_c: int | None


def load_nvml() -> Any:
    """Import ``pynvml``, NVIDIA's Python module for NVML. Raise ImportError."""
    return importlib.import_module("pynvml")


class GpuMonitor:
    """Reads the use of all GPUs of this machine.

    ``load`` returns the module ``pynvml``. Any thread may call the methods.
    """

    def __init__(self, load: Callable[[], Any] = load_nvml) -> None:
        self._nvml: Any = None
        self.unavailable_reason = ""
        """Reason why the use of GPUs cannot be read; empty if GPU use can be read."""
        try:
            nvml = load()
            nvml.nvmlInit()
        except ImportError:
            self.unavailable_reason = "the Python module pynvml is missing: install nvidia-ml-py"
        except Exception as error:  # NVMLError is a class of the module
            self.unavailable_reason = f"NVML cannot be started: {error}. Install NVIDIA's driver"
        else:
            self._nvml = nvml

    def read(self) -> list[GpuUse]:
        """Return the use of every GPU. A GPU that no longer responds is left out."""
        if self._nvml is None:
            return []
        count = self._asked(self._nvml.nvmlDeviceGetCount) or 0
        return [use for index in range(count) if (use := self._read_one(index)) is not None]

    def close(self) -> None:
        """Shut NVML down. A second call does nothing."""
        nvml, self._nvml = self._nvml, None
        if nvml is not None:
            nvml.nvmlShutdown()

    def _read_one(self, index: int) -> GpuUse | None:
        nvml = self._nvml
        handle = self._asked(lambda: nvml.nvmlDeviceGetHandleByIndex(index))
        if handle is None:
            return None
        rates = self._asked(lambda: nvml.nvmlDeviceGetUtilizationRates(handle))
        memory = self._asked(lambda: nvml.nvmlDeviceGetMemoryInfo(handle))
        return GpuUse(
            index,
            self._asked(lambda: str(nvml.nvmlDeviceGetName(handle))) or "unknown",
            None if rates is None else rates.gpu / 100,
            None if memory is None else int(memory.used),
            None if memory is None else int(memory.total),
            self._asked(lambda: int(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU))),
        )

    def _asked(self, question: Callable[[], T]) -> T | None:
        """Call a function of NVML, and return its result; None if the GPU does not support the call or does not
        respond."""
        try:
            return question()
        except self._nvml.NVMLError:
            return None


class GpuCollector(Collector):
    """Prometheus gauges of all GPUs, read at each scrape."""

    def __init__(self, monitor: GpuMonitor) -> None:
        self._monitor = monitor

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Return the gauges. A figure that a GPU does not report is left out."""
        labels = ("gpu", "name")
        utilisation = GaugeMetricFamily(
            "sightline_engine_gpu_utilisation_ratio", "Share of time in which the GPU computed, 0 to 1", labels=labels
        )
        used = GaugeMetricFamily("sightline_engine_gpu_memory_used_bytes", "Used memory of the GPU", labels=labels)
        total = GaugeMetricFamily("sightline_engine_gpu_memory_total_bytes", "Memory of the GPU", labels=labels)
        celsius = GaugeMetricFamily(
            "sightline_engine_gpu_temperature_celsius", "Temperature of the GPU", labels=labels
        )
        for use in self._monitor.read():
            for family, value in (
                (utilisation, use.utilisation),
                (used, use.memory_used_bytes),
                (total, use.memory_total_bytes),
                (celsius, use.temperature_c),
            ):
                if value is not None:
                    family.add_metric([str(use.index), use.name], value)
        return [utilisation, used, total, celsius]


def export_gpu_use(registry: CollectorRegistry, monitor: GpuMonitor | None = None) -> None:
    """Add the gauges of all GPUs to a registry. Do nothing if NVML cannot be used."""
    monitor = monitor or GpuMonitor()
    if not monitor.unavailable_reason:
        registry.register(GpuCollector(monitor))
