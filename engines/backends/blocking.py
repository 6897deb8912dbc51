"""Base class of the engines whose library computes in the calling thread."""

from __future__ import annotations

from abc import abstractmethod
from concurrent.futures import Future, ThreadPoolExecutor

from engines.engine import Engine, Images, Outputs, Slot
from engines.repository.manifest import Model


class BlockingEngine(Engine):
    """Engine that computes up to ``workers`` batches at the same time, each in its own thread.

    The engine has ``workers + 1`` slots (sets of buffers for one batch), so that the caller can fill or decode one
    batch while all workers compute.
    """

    def __init__(self, workers: int = 1) -> None:
        self._workers = workers
        super().__init__(slots=workers + 1)
        self._pool: ThreadPoolExecutor | None = None
        self._running: dict[Slot, Future[Outputs]] = {}

    @property
    def parallel(self) -> int:
        """Number of batches that the engine computes at the same time."""
        return self._workers

    def load(self, model: Model) -> None:
        """Load a model, and start the worker threads. Raise EngineStateError or ModelLoadFailed."""
        super().load(model)
        self._pool = ThreadPoolExecutor(self._workers, thread_name_prefix="infer")

    def close(self) -> None:
        """Release the model, and end the worker threads. A second call has no effect. Raise EngineStateError."""
        super().close()
        if self._pool:
            self._pool.shutdown()
            self._pool = None

    def _submit_impl(self, slot: Slot) -> None:
        assert self._pool is not None  # noqa: S101  (narrows the type: the base class has checked)
        self._running[slot] = self._pool.submit(self._infer_impl, slot.pixels[: slot.rows])

    def _collect_impl(self, slot: Slot) -> Outputs:
        return self._running.pop(slot).result()

    @abstractmethod
    def _infer_impl(self, images: Images) -> Outputs:
        """Compute and return the outputs of a batch.

        Several threads call this method at the same time. Raise InferenceFailed.
        """
