"""Tests of the use of GPUs through NVML, on a fake of NVIDIA's module."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from engines.gpuuse import GpuMonitor, GpuUse, export_gpu_use, load_nvml
from tests.engines.fakenvml import FakeNvml


def test_the_usage_of_every_gpu_is_read() -> None:
    monitor = GpuMonitor(FakeNvml)
    assert monitor.unavailable_reason == ""
    assert monitor.read() == [
        GpuUse(0, "NVIDIA H0", 0.4, 1 << 30, 16 << 30, 51),
        GpuUse(1, "NVIDIA H1", 0.41, 1 << 30, 16 << 30, None),
    ]


def test_a_lost_gpu_is_left_out_of_the_gpu_usage() -> None:
    nvml = FakeNvml()
    nvml.lost = {0}
    assert [use.index for use in GpuMonitor(lambda: nvml).read()] == [1]


def test_gpu_metrics_leave_out_values_that_a_gpu_does_not_report() -> None:
    registry = CollectorRegistry()
    export_gpu_use(registry, GpuMonitor(FakeNvml))
    text = generate_latest(registry).decode()
    assert 'sightline_engine_gpu_utilisation_ratio{gpu="0",name="NVIDIA H0"} 0.4' in text
    assert 'sightline_engine_gpu_memory_used_bytes{gpu="1",name="NVIDIA H1"} 1.073741824e+09' in text
    assert 'sightline_engine_gpu_temperature_celsius{gpu="0"' in text
    assert 'sightline_engine_gpu_temperature_celsius{gpu="1"' not in text


def missing() -> Any:
    raise ImportError("No module named 'pynvml'")


@pytest.mark.parametrize(
    ("load", "reason"),
    [
        (missing, "the Python module pynvml is missing: install nvidia-ml-py"),
        (lambda: FakeNvml("NVML Shared Library Not Found"), "NVML cannot be started: NVML Shared Library Not Found"),
    ],
)
def test_without_nvml_gpu_metrics_are_missing_and_the_monitor_states_the_reason(load: Any, reason: str) -> None:
    registry, monitor = CollectorRegistry(), GpuMonitor(load)
    export_gpu_use(registry, monitor)
    assert monitor.unavailable_reason.startswith(reason)
    assert monitor.read() == []
    assert generate_latest(registry) == b""
    monitor.close()


def test_a_gpu_monitor_shuts_nvml_down_only_once() -> None:
    nvml = FakeNvml()
    monitor = GpuMonitor(lambda: nvml)
    monitor.close()
    monitor.close()
    assert nvml.started == 0
    assert monitor.read() == []


@pytest.mark.tensorrt
def test_the_real_nvml_module_has_the_functions_of_the_fake() -> None:
    real = pytest.importorskip("pynvml")
    assert load_nvml() is real
    for name, member in vars(FakeNvml).items():
        if name.startswith("nvml"):
            wanted = list(inspect.signature(member).parameters)[1:]
            found = list(inspect.signature(inspect.unwrap(getattr(real, name))).parameters)
            assert found == wanted, name
    assert real.NVML_TEMPERATURE_GPU == FakeNvml.NVML_TEMPERATURE_GPU
    assert issubclass(real.NVMLError, Exception)
