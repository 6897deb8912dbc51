"""CUDA graphs, made by direct calls of libcuda, because pycuda does not support CUDA graphs.

This module has not run on a GPU yet.

The CUDA driver API documents the called functions in the sections "Stream Management" and "Graph Management".
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

from engines.backends.tensorrt.device import Graph, Stream
from engines.backends.tensorrt.probe import error_text, load_driver
from engines.exceptions import GpuError

THREAD_LOCAL = 1
"""CUDA's ``CU_STREAM_CAPTURE_MODE_THREAD_LOCAL``: CUDA calls of other threads do not make a graph capture fail."""


class CudaGraph(Graph):
    """An executable CUDA graph (``CUgraphExec``)."""

    def __init__(self, cuda: Any, executable: ctypes.c_void_p) -> None:
        self._cuda = cuda
        self._executable = executable

    def launch(self, stream: Stream) -> None:
        """Start the graph on a stream."""
        _require(self._cuda, "cuGraphLaunch", self._executable, ctypes.c_void_p(stream.handle))

    def close(self) -> None:
        """Destroy the executable graph."""
        _require(self._cuda, "cuGraphExecDestroy", self._executable)


def capture(stream: Stream, work: Callable[[], bool]) -> CudaGraph | None:
    """Call ``work``, and record the GPU work that it starts on ``stream`` as a CUDA graph.

    Return None if CUDA cannot record the GPU work.
    """
    cuda = load_driver()
    handle = ctypes.c_void_p(stream.handle)
    graph, executable = ctypes.c_void_p(), ctypes.c_void_p()
    _require(cuda, "cuStreamBeginCapture_v2", handle, THREAD_LOCAL)
    started = False
    try:
        started = work()
    except GpuError:
        started = False  # a call that capture forbids: the capture ends below, and the caller runs without a graph
    finally:
        code = cuda.cuStreamEndCapture(handle, ctypes.byref(graph))
    if code or not graph.value:
        return None
    try:
        # The flags argument is 64 bits wide.
        if started and not cuda.cuGraphInstantiateWithFlags(ctypes.byref(executable), graph, ctypes.c_ulonglong(0)):
            return CudaGraph(cuda, executable)
    finally:
        cuda.cuGraphDestroy(graph)
    return None


def _require(cuda: Any, name: str, *arguments: object) -> None:
    code = getattr(cuda, name)(*arguments)
    if code:
        raise GpuError(f"{name} failed: {error_text(cuda, code)}")
