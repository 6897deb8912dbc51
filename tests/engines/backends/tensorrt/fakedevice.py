"""A fake CUDA device that keeps the asynchronous contract of the real one.

Work on a stream runs as late as possible: when a thread waits for its event. A buffer that is written or read too
early therefore shows wrong values in every run, not only in rare runs.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from engines.backends.tensorrt.device import DeviceBuffer, DeviceMemory, Event, GpuDevice, Graph, HostArray, Stream
from engines.exceptions import GpuError

GARBAGE = 0xCD
ALIGNMENT = 256


@dataclass(eq=False)
class FakeWork:
    """One operation of a stream. ``begin`` runs when the operation is started, ``run`` when a thread waits for it."""

    run: Callable[[], None]
    begin: Callable[[], None] = lambda: None
    done: bool = False


@dataclass(eq=False)
class FakeStream:
    handle: int
    queue: deque[FakeWork] = field(default_factory=deque)
    captured: list[FakeWork] | None = None


@dataclass(eq=False)
class FakeEvent:
    stream: FakeStream | None = None
    mark: FakeWork | None = None


class FakeBuffer(DeviceBuffer):
    def __init__(self, device: FakeDevice, address: int, nbytes: int) -> None:
        super().__init__(address, nbytes)
        self._device = device

    def free(self) -> None:
        with self._device.calling():
            self._device.require_owner()
            if self._device.heap.pop(self.address, None) is None:
                raise GpuError("cuMemFree failed: invalid argument")


class FakeGraph(Graph):
    def __init__(self, device: FakeDevice, work: list[FakeWork]) -> None:
        self._device = device
        self._work: list[FakeWork] | None = work
        device.graphs.add(self)

    def launch(self, stream: Stream) -> None:
        with self._device.calling():
            if self._work is None:
                raise GpuError("cuGraphLaunch failed: invalid resource handle")
            self._device.launches += 1
            for work in self._work:
                self._device.enqueue(stream, FakeWork(work.run, work.begin))

    def close(self) -> None:
        with self._device.calling():
            self._work = None
            self._device.graphs.discard(self)


class FakeDevice(GpuDevice):
    """A GPU whose memory is a dictionary of arrays by address. ``broken`` is the text of its sticky error."""

    def __init__(self, total_bytes: int = 1 << 30, capability: tuple[int, int] = (9, 0)) -> None:
        self.name, self.compute_capability = "fake GPU", capability
        self.total_bytes = total_bytes
        self.heap: dict[int, npt.NDArray[np.uint8]] = {}
        self.streams: dict[int, FakeStream] = {}
        self.graphs: set[FakeGraph] = set()
        self.pinned: list[HostArray] = []
        self.broken = ""
        self.can_capture = True
        self.closed = False
        self.launches = self.pageable_copies = 0
        self._owner = threading.get_ident()
        self._context = threading.local()
        self._lock = threading.RLock()
        self._addresses = itertools.count(0x7F00_0000_0000, 1 << 32)
        self._handles = itertools.count(1)

    @contextmanager
    def current(self) -> Iterator[None]:
        if self.closed:
            raise GpuError("cuCtxPushCurrent failed: context is destroyed")
        self._context.depth = getattr(self._context, "depth", 0) + 1
        try:
            yield
        finally:
            self._context.depth -= 1

    @contextmanager
    def calling(self) -> Iterator[None]:
        """Check that the calling thread has the context and that no sticky error has occurred."""
        if self.closed or not getattr(self._context, "depth", 0):
            raise GpuError("invalid device context")
        if self.broken:
            raise GpuError(self.broken)
        with self._lock:
            yield

    def require_owner(self) -> None:
        if threading.get_ident() != self._owner:
            raise GpuError("cannot activate out-of-thread context")

    def memory(self) -> DeviceMemory:
        with self.calling():
            return DeviceMemory(
                self.total_bytes - sum(array.nbytes for array in self.heap.values()), self.total_bytes
            )

    def allocate(self, nbytes: int) -> DeviceBuffer:
        with self.calling():
            self._forbid_in_capture("cuMemAlloc")
            if nbytes > self.memory().free_bytes:
                raise GpuError("cuMemAlloc failed: out of memory")
            address = next(self._addresses)
            self.heap[address] = np.full(nbytes, GARBAGE, np.uint8)
            return FakeBuffer(self, address, nbytes)

    def pin(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> HostArray:
        with self.calling():
            array = np.empty(shape, dtype)
            array.view(np.uint8)[...] = GARBAGE
            self.pinned.append(array)
            return array

    def stream(self) -> Stream:
        with self.calling():
            stream = FakeStream(next(self._handles))
            self.streams[stream.handle] = stream
            return stream

    def event(self) -> Event:
        with self.calling():
            return Event(FakeEvent())

    def copy_in(self, target: DeviceBuffer, source: HostArray, stream: Stream) -> None:
        with self.calling():
            self._note_pageable(source)

            def run() -> None:
                self.bytes_at(target.address, source.nbytes)[:] = source.reshape(-1).view(np.uint8)

            self.enqueue(stream, FakeWork(run))

    def copy_out(self, target: HostArray, source: DeviceBuffer, stream: Stream) -> None:
        with self.calling():
            self._note_pageable(target)

            def begin() -> None:
                target.reshape(-1).view(np.uint8)[:] = GARBAGE

            def run() -> None:
                target.reshape(-1).view(np.uint8)[:] = self.bytes_at(source.address, target.nbytes)

            self.enqueue(stream, FakeWork(run, begin))

    def record(self, event: Event, stream: Stream) -> None:
        with self.calling():
            assert isinstance(event, FakeEvent)
            event.stream, event.mark = self.streams[stream.handle], FakeWork(lambda: None)
            self.enqueue(stream, event.mark)

    def wait(self, event: Event) -> None:
        with self.calling():
            assert isinstance(event, FakeEvent)
            while event.stream and event.mark and not event.mark.done:
                self._run_one(event.stream)

    def capture(self, stream: Stream, work: Callable[[], bool]) -> Graph | None:
        with self.calling():
            fake = self.streams[stream.handle]
            fake.captured = captured = []
            try:
                started = work()
            except GpuError:
                started = False
            finally:
                fake.captured = None
            return FakeGraph(self, captured) if started and self.can_capture else None

    def check(self) -> None:
        with self.calling():
            for stream in self.streams.values():
                while stream.queue:
                    self._run_one(stream)

    def close(self) -> None:
        self.require_owner()
        self.closed = True

    def enqueue(self, stream: Stream, work: FakeWork) -> None:
        """Start an operation on a stream, or add it to the stream's capture."""
        fake = self.streams[stream.handle]
        if fake.captured is not None:
            fake.captured.append(work)
        else:
            work.begin()
            fake.queue.append(work)

    def bytes_at(self, address: int, nbytes: int) -> npt.NDArray[np.uint8]:
        """Return device memory for an operation. An address that is not allocated breaks the context."""
        array = self.heap.get(address)
        if array is None or nbytes > array.nbytes:
            self.broken = "an illegal memory access was encountered"
            raise GpuError(self.broken)
        return array[:nbytes]

    def _run_one(self, stream: FakeStream) -> None:
        work = stream.queue.popleft()
        try:
            work.run()
        finally:
            work.done = True
        if self.broken:
            raise GpuError(self.broken)

    def _note_pageable(self, array: HostArray) -> None:
        self.pageable_copies += not any(np.shares_memory(array, pinned) for pinned in self.pinned)

    def _forbid_in_capture(self, name: str) -> None:
        if any(stream.captured is not None for stream in self.streams.values()):
            raise GpuError(f"{name} failed: operation not permitted when stream is capturing")
