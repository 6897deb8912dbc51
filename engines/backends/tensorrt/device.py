"""The device interface: the CUDA calls that the TensorRT backend needs.

``pycudadevice`` implements the interface. The tests have a fake device that keeps CUDA's asynchronous contract.
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
"""A point in a stream that a thread can wait for. The waiting thread sleeps."""


class DeviceMemory(NamedTuple):
    """Free and total memory of a device, in bytes."""

    free_bytes: int
    total_bytes: int


class Stream(Protocol):
    """A queue of device work that runs in order. ``handle`` is the ``CUstream`` that TensorRT uses."""

    @property
    def handle(self) -> int: ...


class DeviceBuffer(ABC):
    """Device memory that its holder owns, and returns by ``free``. Addresses are valid until the buffer is freed."""

    def __init__(self, address: int, nbytes: int) -> None:
        self.address = address
        self.nbytes = nbytes

    @abstractmethod
    def free(self) -> None:
        """Return the memory to the device. No work in flight may use the memory. Raise GpuError."""


class Graph(ABC):
    """A captured sequence of device work, launched by one call. The graph contains the addresses of its buffers."""

    @abstractmethod
    def launch(self, stream: Stream) -> None:
        """Start the work on a stream, and return at once. Raise GpuError."""

    @abstractmethod
    def close(self) -> None:
        """Destroy the graph. Raise GpuError."""


class GpuDevice(ABC):
    """One GPU, used through its primary context, which TensorRT uses too.

    The thread that makes the device opens the context, and the same thread closes the device. Call all other methods
    within ``current()``, which provides the context. All methods raise GpuError. After a sticky error, such as an
    illegal address, every call fails until the process ends.
    """

    name: str
    compute_capability: tuple[int, int]

    @abstractmethod
    def current(self) -> AbstractContextManager[None]:
        """Make the context current in the calling thread while the block runs."""

    @abstractmethod
    def memory(self) -> DeviceMemory:
        """Return the free and total memory of the whole device, other processes included."""

    @abstractmethod
    def allocate(self, nbytes: int) -> DeviceBuffer:
        """Allocate device memory, aligned to 256 bytes as TensorRT requires."""

    @abstractmethod
    def pin(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> HostArray:
        """Return an uninitialised array in pinned host memory. Copies from other memory are not asynchronous."""

    @abstractmethod
    def stream(self) -> Stream:
        """Return a stream that does not wait for the default stream."""

    @abstractmethod
    def event(self) -> Event: ...

    @abstractmethod
    def copy_in(self, target: DeviceBuffer, source: HostArray, stream: Stream) -> None:
        """Start to copy a pinned array to the device.

        Do not write to ``source`` until an event behind the copy has happened.
        """

    @abstractmethod
    def copy_out(self, target: HostArray, source: DeviceBuffer, stream: Stream) -> None:
        """Start to fill a pinned array from the device.

        Do not read ``target`` until an event behind the copy has happened.
        """

    @abstractmethod
    def record(self, event: Event, stream: Stream) -> None:
        """Let ``event`` happen when the work started so far on ``stream`` is done."""

    @abstractmethod
    def wait(self, event: Event) -> None:
        """Block until an event has happened."""

    @abstractmethod
    def capture(self, stream: Stream, work: Callable[[], bool]) -> Graph | None:
        """Record the work that ``work`` starts on ``stream``, without running it.

        Return None if ``work`` returns False, or if CUDA cannot capture the work: then run ``work`` without a graph.
        """

    @abstractmethod
    def check(self) -> None:
        """Wait for all work of the context. Raise GpuError if the context cannot be used any more."""

    @abstractmethod
    def close(self) -> None:
        """Release the context. Free all buffers first."""


def row_bytes(shape: tuple[int, ...], dtype: npt.DTypeLike) -> int:
    """Return the size of one row of a tensor, whose first axis is the batch, in bytes."""
    return int(np.prod(shape[1:], dtype=np.int64)) * np.dtype(dtype).itemsize
