"""Inference backends by name. The library of a backend is imported only in that backend's module."""

from __future__ import annotations

from collections.abc import Mapping
from pkgutil import resolve_name

from engines.engine import Engine

__all__ = ["BACKENDS", "make"]


BACKENDS: Mapping[str, str] = {
    "onnxruntime": "engines.backends.onnxruntime:OnnxRuntimeEngine",
    "fake": "engines.backends.fake:FakeEngine",
}
"""Module and class of each backend."""


def make(name: str, workers: int = 1) -> Engine:
    """Return a new engine of a backend, which computes up to ``workers`` batches at once on a CPU.

    Raise KeyError if the name is not in ``BACKENDS``.
    """
    engine: Engine = resolve_name(BACKENDS[name])(workers)
    return engine
