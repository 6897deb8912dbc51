"""Inference backends by name. The library of a backend is imported only in that backend's module."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pkgutil import resolve_name

from engines.backends.auto import AUTO, CPU_ORDER, BackendChoice, choose
from engines.backends.hardware import processor
from engines.engine import Engine
from ingest.site.pipeline import Precision

__all__ = ["AUTO", "BACKENDS", "BackendChoice", "choose_cpu_here", "choose_here", "make", "unavailable_reason"]


BACKENDS: Mapping[str, str] = {
    "tensorrt": "engines.backends.tensorrt:TensorRtEngine",
    "onnxruntime-cuda": "engines.backends.onnxruntimecuda:OnnxRuntimeCudaEngine",
    "openvino": "engines.backends.openvino:OpenVinoEngine",
    "onnxruntime": "engines.backends.onnxruntime:OnnxRuntimeEngine",
    "fake": "engines.backends.fake:FakeEngine",
}
"""Module and class of each backend. Each module has a function ``unavailable_reason() -> str``."""


def make(name: str, workers: int = 1) -> Engine:
    """Return a new engine of a backend, which computes up to ``workers`` batches at once on a CPU.

    Raise KeyError if the name is not in ``BACKENDS``.
    """
    engine: Engine = resolve_name(BACKENDS[name])(workers)
    return engine


def unavailable_reason(name: str) -> str:
    """Return why a backend cannot be used on this machine; empty if it can be used.

    Raise KeyError if the name is not in ``BACKENDS``.
    """
    module = BACKENDS[name].partition(":")[0]
    try:
        reason: str = import_module(module).unavailable_reason()
    except ModuleNotFoundError as error:
        return f"the Python module {error.name} is missing"
    return reason


def choose_cpu_here(precision: Precision) -> BackendChoice:
    """Return the backend for a model that allows ``precision``, on the processor of this machine."""
    return choose(precision, processor(), unavailable_reason, CPU_ORDER)


def choose_here(precision: Precision) -> BackendChoice:
    """Return the backend for a model that allows ``precision``, on this machine."""
    return choose(precision, processor(), unavailable_reason)
