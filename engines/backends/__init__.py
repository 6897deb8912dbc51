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


def make(name: str) -> Engine:
    """Return a new engine of a backend. Raise KeyError if the name is not in ``BACKENDS``."""
    engine: Engine = resolve_name(BACKENDS[name])()
    return engine
