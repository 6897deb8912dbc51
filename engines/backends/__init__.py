"""Inference backends by name. Each backend's library is imported only inside its own module."""

from __future__ import annotations

from collections.abc import Callable

from engines.engine import Engine

__all__ = ["BACKENDS", "make"]


def _onnxruntime() -> Engine:
    from engines.backends.onnxruntime import OnnxRuntimeEngine

    return OnnxRuntimeEngine()


def _fake() -> Engine:
    from engines.backends.fake import FakeEngine

    return FakeEngine()


BACKENDS: dict[str, Callable[[], Engine]] = {"onnxruntime": _onnxruntime, "fake": _fake}


def make(name: str) -> Engine:
    """Return a new engine of a backend. Raise KeyError if the name is not in ``BACKENDS``."""
    return BACKENDS[name]()
