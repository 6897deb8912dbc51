"""Tests of the search for TensorRT and a GPU."""

from __future__ import annotations

import ctypes
import types
from typing import Any

import pytest

from engines.backends.tensorrt import probe, unavailable_reason


class FakeDriver:
    """The calls of libcuda that the probe makes."""

    def __init__(self, init: int = 0, gpus: int = 1) -> None:
        self.init, self.gpus = init, gpus

    def cuInit(self, flags: int) -> int:
        return self.init

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = self.gpus
        return 0

    def cuGetErrorString(self, code: int, text: Any) -> int:
        text._obj.value = b"no CUDA-capable device is detected"
        return 0


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> types.SimpleNamespace:
    trt = types.SimpleNamespace(__version__="10.15.1.29")
    monkeypatch.setattr(probe, "find_spec", lambda name: name in ("tensorrt_bindings", "pycuda"))
    monkeypatch.setattr(probe.importlib, "import_module", lambda name: {"tensorrt_bindings": trt}[name])
    monkeypatch.setattr(probe, "load_driver", FakeDriver)
    return trt


@pytest.mark.usefixtures("installed")
def test_tensorrt_is_available_on_a_machine_with_its_modules_and_a_gpu() -> None:
    assert unavailable_reason() == ""


@pytest.mark.parametrize(("present", "reason"), [((), "TensorRT is not installed"), (("tensorrt",), "pycuda")])
def test_the_reason_why_tensorrt_is_unavailable_names_a_missing_python_module(
    present: tuple[str, ...], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "find_spec", lambda name: name in present)
    assert reason in unavailable_reason()


@pytest.mark.parametrize(
    ("driver", "reason"),
    [
        (FakeDriver(init=100), "cuInit failed with CUDA error 100 (no CUDA-capable device is detected)"),
        (FakeDriver(gpus=0), "reports no GPU"),
    ],
)
def test_a_gpu_driver_without_a_gpu_is_reported_before_tensorrt_is_imported(
    driver: FakeDriver, reason: str, installed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "load_driver", lambda: driver)
    monkeypatch.setattr(probe, "load_tensorrt", lambda: pytest.fail("TensorRT was imported without a GPU"))
    assert reason in unavailable_reason()


@pytest.mark.usefixtures("installed")
def test_a_missing_gpu_driver_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "load_driver", lambda: ctypes.CDLL("libcuda-of-no-one.so"))
    assert "no NVIDIA driver" in unavailable_reason()


@pytest.mark.parametrize("version", ["8.6.1", "10.11.0.33", "12.0.0"])
def test_an_unsupported_release_of_tensorrt_is_refused(version: str, installed: types.SimpleNamespace) -> None:
    installed.__version__ = version
    assert f"TensorRT {version} is not supported: expected 10.12 to 11.x" in unavailable_reason()


@pytest.mark.usefixtures("installed")
def test_a_tensorrt_library_that_cannot_be_loaded_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise ImportError("libnvinfer.so.10: cannot open shared object file")

    monkeypatch.setattr(probe.importlib, "import_module", refuse)
    assert "libnvinfer.so.10" in unavailable_reason()
