"""The device interface: the CUDA calls that the TensorRT backend needs.

The module ``pycudadevice`` implements the device interface with pycuda. The tests implement the device interface with
a fake device, whose calls are asynchronous like those of CUDA.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, NewType, Protocol

import numpy as np
import numpy.typing as npt

HostArray = npt.NDArray[Any]
Event = NewType("Event", object)
"""CUDA event: a point in a stream that a thread can wait for. A waiting thread sleeps and does not poll."""


class DeviceMemory(NamedTuple):
    """Free and total memory of a device, in bytes."""

    free_bytes: int
    total_bytes: int


class Stream(Protocol):
    """CUDA stream: a queue of GPU work that runs in order.

    ``handle`` is the ``CUstream`` pointer that TensorRT uses.
    """

    @property
    def handle(self) -> int: ...


class DeviceBuffer(ABC):
    """Buffer of GPU memory. The owner of the buffer must call ``free``, which makes ``address`` invalid."""

    def __init__(self, address: int, nbytes: int) -> None:
        self.address = address
        self.nbytes = nbytes

    @abstractmethod
    def free(self) -> None:
        """Free the memory. The caller must make sure that no unfinished GPU work uses the memory. Raise GpuError."""


class Graph(ABC):
    """CUDA graph: a recorded sequence of GPU work that one call launches.

    The addresses of the buffers are fixed in the graph.
    """

    @abstractmethod
    def launch(self, stream: Stream) -> None:
        """Start the graph's work on a stream, and return without waiting for the work. Raise GpuError."""

    @abstractmethod
    def close(self) -> None:
        """Destroy the graph. Raise GpuError."""


class GpuDevice(ABC):
    """One GPU, used through the primary CUDA context of the process, which TensorRT uses too.

    The constructor opens the context, and the same thread must call ``close``. All other methods must be called
    within ``with device.current()``, which makes the context current. All methods raise GpuError if a CUDA call
    fails. After a sticky CUDA error, such as an illegal address, every CUDA call fails until the process ends.
    """

    name: str
    compute_capability: tuple[int, int]

    @abstractmethod
    def current(self) -> AbstractContextManager[None]:
        """Make the CUDA context current in the calling thread while the ``with`` block runs."""

    @abstractmethod
    def memory(self) -> DeviceMemory:
        """Return the free and the total memory of the GPU.

        The free memory excludes memory that other processes use.
        """

    @abstractmethod
    def allocate(self, nbytes: int) -> DeviceBuffer:
        """Allocate device memory, aligned to 256 bytes as TensorRT requires."""

    @abstractmethod
    def pin(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> HostArray:
        """Return an uninitialised array in pinned host memory.

        Only copies from and to pinned memory are asynchronous.
        """

    @abstractmethod
    def stream(self) -> Stream:
        """Return a new CUDA stream that does not wait for the default stream."""

    @abstractmethod
    def event(self) -> Event: ...

    @abstractmethod
    def copy_in(self, target: DeviceBuffer, source: HostArray, stream: Stream) -> None:
        """Start an asynchronous copy of a pinned array to the GPU.

        The caller must record an event after this call, and must not change ``source`` before the event has happened.
        """

    @abstractmethod
    def copy_out(self, target: HostArray, source: DeviceBuffer, stream: Stream) -> None:
        """Start an asynchronous copy from the GPU into a pinned array.

        The caller must record an event after this call, and must not read ``target`` before the event has happened.
        """

    @abstractmethod
    def record(self, event: Event, stream: Stream) -> None:
        """Record ``event`` on ``stream``.

        The event happens when all work started on the stream before this call is finished.
        """

    @abstractmethod
    def wait(self, event: Event) -> None:
        """Block the calling thread until ``event`` has happened."""

    @abstractmethod
    def capture(self, stream: Stream, work: Callable[[], bool]) -> Graph | None:
        """Call ``work``, and record the GPU work that it starts on ``stream`` as a graph. The recorded GPU work does
        not run during this call.

        Return None if ``work`` returns False, or if CUDA cannot record the GPU work. If the result is None, the
        caller must call ``work`` without a graph.
        """

    @abstractmethod
    def check(self) -> None:
        """Wait for all GPU work of the CUDA context. Raise GpuError if the context has failed permanently."""

    @abstractmethod
    def close(self) -> None:
        """Release the CUDA context. The caller must have freed all buffers before this call."""


def row_bytes(shape: tuple[int, ...], dtype: npt.DTypeLike) -> int:
    """Return the size of one batch item of a tensor, in bytes. The first axis of ``shape`` is the batch."""
    return int(np.prod(shape[1:], dtype=np.int64)) * np.dtype(dtype).itemsize
