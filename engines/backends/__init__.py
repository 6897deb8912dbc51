"""What runs models. Each back end's own library is imported only inside its module."""

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
    """Make an engine of a back end. Raise KeyError for a name that is not in ``BACKENDS``."""
    return BACKENDS[name]()
