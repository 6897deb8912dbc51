"""One thread per GPU, which opens the primary context, makes all device objects and starts all work."""

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
    """The thread of one GPU. All engines on this GPU share the thread.

    ``open_device`` runs in the thread. The thread only starts work and never waits for it, so that the next batch is
    copied while the last one is computed. The thread that collects a batch waits for the batch's event.

    The thread is a daemon that ``atexit`` closes: pycuda aborts a process in which a thread ends with a context on
    its stack.
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
        """Return whether the thread has ended."""
        return not self._thread.is_alive()

    def start(self, work: Callable[[], T]) -> Future[T]:
        """Run ``work`` in the thread, and return its future.

        The future raises InferenceFailed or DeviceLost in place of GpuError.
        """
        future: Future[T] = Future()
        if self.closed:
            future.set_exception(DeviceLost("the thread of the GPU has ended"))
        else:
            self._calls.put(lambda: self._settle(future, work))
        return future

    def call(self, work: Callable[[], T]) -> T:
        """Run ``work`` in the thread, and return its result."""
        return self.start(work).result()

    def wait(self, event: Event) -> None:
        """Block the calling thread until an event has happened. Raise InferenceFailed or DeviceLost."""
        failure = ""
        try:
            with self.device.current():
                self.device.wait(event)
        except GpuError as error:
            failure = str(error)
        if failure:
            raise self.call(lambda: self._sorted(failure))

    def enter(self, release: Callable[[], None]) -> None:
        """Add a user of the device. ``release`` runs in the thread if the process ends before ``leave``."""
        self._users.add(release)

    def leave(self, release: Callable[[], None]) -> None:
        """Run a user's ``release`` in the thread, then remove the user. The context stays for the next user."""
        if release in self._users and not self.closed:
            with suppress(EngineError):  # memory of a lost device cannot be freed
                self.call(release)
        self._users.discard(release)

    def close(self) -> None:
        """Run the ``release`` of all users, release the context, and end the thread. May be called twice."""
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
        """Return DeviceLost if the context has failed for good, InferenceFailed otherwise.

        CUDA reports an error of a kernel at any later call, and repeats it until the process ends. ``check`` waits
        for all work. Afterwards, no copy of a failed batch is in flight.
        """
        try:
            self.device.check()
        except GpuError as error:
            self._lost = f"{self.device.name}: {error}"
        return DeviceLost(self._lost) if self._lost else InferenceFailed(text)


_threads: dict[int, GpuThread] = {}
_lock = threading.Lock()


def gpu_thread(index: int) -> GpuThread:
    """Return the thread of GPU number ``index``, and start it if there is none. Raise GpuError."""
    from engines.backends.tensorrt.pycudadevice import PycudaDevice

    with _lock:
        thread = _threads.get(index)
        if thread is None or thread.closed:
            thread = _threads[index] = GpuThread(lambda: PycudaDevice(index), f"gpu-{index}")
        return thread


def _without_frames(error: Exception) -> Exception:
    """Return an error without its traceback, which would keep device objects alive."""
    error.__context__ = error.__cause__ = None
    return error.with_traceback(None)
