"""One thread for each GPU.

The thread opens the primary CUDA context, creates all CUDA objects and starts all GPU work.
"""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from queue import SimpleQueue
from typing import TypeVar

from engines.backends.tensorrt.device import Event, GpuDevice
from engines.exceptions import DeviceLost, EngineError, GpuError, InferenceFailed

T = TypeVar("T")


class GpuThread:
    """The thread that makes the CUDA calls for one GPU. All engines on this GPU share the thread.

    The first call in the new thread is ``open_device``. The thread starts GPU work without waiting for its end, so
    that the GPU copies one batch while it computes another. The thread that collects a batch calls ``wait`` to wait
    for the end of the batch.

    The thread is a daemon thread, and an ``atexit`` handler closes it before the process ends. pycuda aborts the
    process if a thread ends while a CUDA context is on the thread's stack.
    """

    def __init__(self, open_device: Callable[[], GpuDevice], name: str = "gpu") -> None:
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._users: set[Callable[[], None]] = set()
        self._lost = ""
        opened: Future[GpuDevice] = Future()
        self._thread = threading.Thread(target=self._run, args=(open_device, opened), name=name, daemon=True)
        self._thread.start()
        self.device = opened.result()
        atexit.register(self.close)

    @property
    def closed(self) -> bool:
        """Return whether the GPU thread has ended."""
        return not self._thread.is_alive()

    def start(self, work: Callable[[], T]) -> Future[T]:
        """Run ``work`` in the GPU thread, and return a future with the result.

        If ``work`` raises GpuError, the future raises InferenceFailed or DeviceLost.
        """
        future: Future[T] = Future()
        if self.closed:
            future.set_exception(DeviceLost("the thread of the GPU has ended"))
        else:
            self._calls.put(lambda: self._settle(future, work))
        return future

    def call(self, work: Callable[[], T]) -> T:
        """Run ``work`` in the GPU thread, wait for its end, and return its result."""
        return self.start(work).result()

    def wait(self, event: Event) -> None:
        """Block the calling thread until ``event`` has happened. Raise InferenceFailed or DeviceLost."""
        failure = ""
        try:
            with self.device.current():
                self.device.wait(event)
        except GpuError as error:
            failure = str(error)
        if failure:
            raise self.call(lambda: self._sorted(failure))

    def enter(self, release: Callable[[], None]) -> None:
        """Add a user of the GPU.

        If the process ends before the user calls ``leave``, the GPU thread calls ``release``.
        """
        self._users.add(release)

    def leave(self, release: Callable[[], None]) -> None:
        """Call ``release`` in the GPU thread, then remove the user. The CUDA context stays open for other users."""
        if release in self._users and not self.closed:
            with suppress(EngineError):  # memory of a lost device cannot be freed
                self.call(release)
        self._users.discard(release)

    def close(self) -> None:
        """Call ``release`` of all users, release the CUDA context, and end the thread.

        A second call has no effect.
        """
        atexit.unregister(self.close)
        if self.closed:
            return
        for release in list(self._users):
            with suppress(EngineError):
                self.call(release)
        self._users.clear()
        self._calls.put(None)
        self._thread.join()

    def _run(self, open_device: Callable[[], GpuDevice], opened: Future[GpuDevice]) -> None:
        try:
            device = open_device()
        except Exception as error:
            opened.set_exception(error)
            return
        with device.current():
            opened.set_result(device)
            while (call := self._calls.get()) is not None:
                call()
                del call  # the call holds the work's objects, which must not outlive their context
        with suppress(GpuError):
            device.close()

    def _settle(self, future: Future[T], work: Callable[[], T]) -> None:
        try:
            if self._lost:
                raise DeviceLost(self._lost)
            future.set_result(work())
            return
        except GpuError as error:
            text = str(error)
        except Exception as error:
            future.set_exception(_without_frames(error))
            return
        future.set_exception(self._sorted(text))

    def _sorted(self, text: str) -> EngineError:
        """Return DeviceLost if the CUDA context has failed permanently, else InferenceFailed.

        CUDA reports the error of a kernel at some later call, and repeats a permanent error at every call. This
        method calls ``device.check``, which waits for all GPU work, so that no copy of a failed batch is still
        running.
        """
        try:
            self.device.check()
        except GpuError as error:
            self._lost = f"{self.device.name}: {error}"
        return DeviceLost(self._lost) if self._lost else InferenceFailed(text)


_threads: dict[int, GpuThread] = {}
_lock = threading.Lock()


def gpu_thread(index: int) -> GpuThread:
    """Return the thread of GPU number ``index``. If no thread is running for this GPU, start one. Raise GpuError."""
    from engines.backends.tensorrt.pycudadevice import PycudaDevice

    with _lock:
        thread = _threads.get(index)
        if thread is None or thread.closed:
            thread = _threads[index] = GpuThread(lambda: PycudaDevice(index), f"gpu-{index}")
        return thread


def _without_frames(error: Exception) -> Exception:
    """Return an error without its traceback, because the frames of a traceback would keep CUDA objects alive."""
    error.__context__ = error.__cause__ = None
    return error.with_traceback(None)
