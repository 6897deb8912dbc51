"""Registry of inference backends by name. Only the module of a backend imports that backend's library."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pkgutil import resolve_name

from engines.backends.auto import AUTO, CPU_ORDER, BackendChoice, choose
from engines.backends.hardware import processor
from engines.engine import Engine
from ingest.site.pipeline import Precision

__all__ = [
    "AUTO",
    "BACKENDS",
    "BackendChoice",
    "choose_cpu_here",
    "choose_here",
    "make",
    "unavailable_reason",
    "usable",
]


BACKENDS: Mapping[str, str] = {
    "tensorrt": "engines.backends.tensorrt:TensorRtEngine",
    "onnxruntime-cuda": "engines.backends.onnxruntimecuda:OnnxRuntimeCudaEngine",
    "openvino": "engines.backends.openvino:OpenVinoEngine",
    "onnxruntime": "engines.backends.onnxruntime:OnnxRuntimeEngine",
    "fake": "engines.backends.fake:FakeEngine",
}
"""Map from the name of a backend to its module and class, as ``module:class``. Each backend module has a function
``unavailable_reason() -> str``."""


def make(name: str, workers: int = 1) -> Engine:
    """Return a new engine of a backend. On a CPU, the engine computes up to ``workers`` batches at the same time.

    Raise KeyError if the name is not in ``BACKENDS``.
    """
    engine: Engine = resolve_name(BACKENDS[name])(workers)
    return engine


def unavailable_reason(name: str) -> str:
    """Return the reason why a backend cannot be used on this machine, or an empty text if the backend can be used.

    Raise KeyError if the name is not in ``BACKENDS``.
    """
    module = BACKENDS[name].partition(":")[0]
    try:
        reason: str = import_module(module).unavailable_reason()
    except ModuleNotFoundError as error:
        return f"the Python module {error.name} is missing"
    return reason


def usable() -> list[str]:
    """Return the names of the backends that can be used on this machine, without ``fake``."""
    return [name for name in BACKENDS if name != "fake" and not unavailable_reason(name)]


def choose_cpu_here(precision: Precision) -> BackendChoice:
    """Return the best CPU backend of this machine for a model whose manifest allows ``precision``."""
    return choose(precision, processor(), unavailable_reason, CPU_ORDER)


def choose_here(precision: Precision) -> BackendChoice:
    """Return the best backend of this machine, GPU or CPU, for a model whose manifest allows ``precision``."""
    return choose(precision, processor(), unavailable_reason)
