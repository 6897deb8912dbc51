"""Implementation of the device interface with pycuda. This module has not run on a GPU yet.

pycuda keeps a stack of contexts per thread. pycuda's objects must be freed in the thread that opened their context.
To free them safely, a single thread (GpuThread) opens, uses and closes a PycudaDevice. Other threads push the CUDA
context on their stack only to wait for events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy.typing as npt

from engines.backends.tensorrt.device import DeviceBuffer, DeviceMemory, Event, GpuDevice, Graph, HostArray, Stream
from engines.backends.tensorrt.graphs import capture
from engines.exceptions import GpuError

T = TypeVar("T")

NON_BLOCKING = 1
"""CUDA's flag ``CU_STREAM_NON_BLOCKING``: a stream with this flag does not wait for the default stream."""


class PycudaBuffer(DeviceBuffer):
    """GPU memory from ``cuMemAlloc``, which aligns memory to 256 bytes."""

    def __init__(self, cuda: Any, nbytes: int) -> None:
        self._cuda = cuda
        self._allocation = call(cuda, cuda.mem_alloc, max(1, nbytes))
        super().__init__(int(self._allocation), nbytes)

    def free(self) -> None:
        """Free the GPU memory."""
        call(self._cuda, self._allocation.free)


class PycudaDevice(GpuDevice):
    """GPU number ``index`` among the GPUs that CUDA_VISIBLE_DEVICES makes visible.

    The constructor makes the CUDA context current in the calling thread.
    """

    def __init__(self, index: int) -> None:
        import pycuda.driver as cuda  # raises ImportError without a driver

        self._cuda = cuda
        call(cuda, cuda.init)
        device = call(cuda, cuda.Device, index)
        self.name = str(call(cuda, device.name))
        major, minor = call(cuda, device.compute_capability)
        self.compute_capability = (int(major), int(minor))
        self._context = call(cuda, device.retain_primary_context)

    @contextmanager
    def current(self) -> Iterator[None]:
        """Push the CUDA context on the thread's stack, and pop it at the end of the ``with`` block."""
        call(self._cuda, self._context.push)
        try:
            yield
        finally:
            call(self._cuda, self._cuda.Context.pop)

    def memory(self) -> DeviceMemory:
        """Return the free and the total memory of the GPU."""
        free, total = call(self._cuda, self._cuda.mem_get_info)
        return DeviceMemory(int(free), int(total))

    def allocate(self, nbytes: int) -> DeviceBuffer:
        """Allocate device memory."""
        return PycudaBuffer(self._cuda, nbytes)

    def pin(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> HostArray:
        """Return an array in portable pinned host memory, which is pinned for all CUDA contexts."""
        flags = self._cuda.host_alloc_flags.PORTABLE
        array: HostArray = call(self._cuda, self._cuda.pagelocked_empty, shape, dtype, "C", flags)
        return array

    def stream(self) -> Stream:
        """Return a new CUDA stream that does not wait for the default stream."""
        stream: Stream = call(self._cuda, self._cuda.Stream, NON_BLOCKING)
        return stream

    def event(self) -> Event:
        """Return a CUDA event without timing. A thread that waits for the event sleeps and does not poll."""
        flags = self._cuda.event_flags
        return Event(call(self._cuda, self._cuda.Event, int(flags.DISABLE_TIMING) | int(flags.BLOCKING_SYNC)))

    def copy_in(self, target: DeviceBuffer, source: HostArray, stream: Stream) -> None:
        """Start an asynchronous copy to the GPU."""
        call(self._cuda, self._cuda.memcpy_htod_async, target.address, source, stream)

    def copy_out(self, target: HostArray, source: DeviceBuffer, stream: Stream) -> None:
        """Start an asynchronous copy from the GPU."""
        call(self._cuda, self._cuda.memcpy_dtoh_async, target, source.address, stream)

    def record(self, event: Event, stream: Stream) -> None:
        """Record a CUDA event on a stream."""
        call(self._cuda, event.record, stream)  # type: ignore[attr-defined]

    def wait(self, event: Event) -> None:
        """Block the calling thread until ``event`` has happened.

        During the wait, pycuda releases Python's global interpreter lock.
        """
        call(self._cuda, event.synchronize)  # type: ignore[attr-defined]

    def capture(self, stream: Stream, work: Callable[[], bool]) -> Graph | None:
        """Record GPU work as a CUDA graph by direct calls of libcuda, because pycuda does not support CUDA graphs."""
        return capture(stream, work)

    def check(self) -> None:
        """Wait for all GPU work of the CUDA context. Raise GpuError if the context has failed permanently."""
        call(self._cuda, self._cuda.Context.synchronize)

    def close(self) -> None:
        """Release the primary CUDA context of the GPU."""
        call(self._cuda, self._context.detach)


def call(cuda: Any, function: Callable[..., T], *arguments: object) -> T:
    """Call a function of pycuda, and raise pycuda's errors as GpuError.

    The GpuError is raised outside the ``except`` block and keeps only the text. A reference to pycuda's exception
    would keep stack frames alive, with the CUDA contexts and buffers in the stack frames.
    """
    try:
        return function(*arguments)
    except cuda.Error as error:
        text = str(error)
    raise GpuError(text)
