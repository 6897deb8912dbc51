"""Base of the backends whose library computes in the calling thread."""

from __future__ import annotations

from abc import abstractmethod
from concurrent.futures import Future, ThreadPoolExecutor

from engines.engine import Engine, Images, Outputs, Slot


class BlockingEngine(Engine):
    """Engine that computes up to ``workers`` batches at once, each in a thread of its own.

    There is one slot more than workers: one batch is filled or decoded while all workers compute.
    """

    def __init__(self, workers: int = 1) -> None:
        super().__init__(slots=workers + 1)
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="infer")
        self._running: dict[Slot, Future[Outputs]] = {}

    def _submit_impl(self, slot: Slot) -> None:
        self._running[slot] = self._pool.submit(self._infer_impl, slot.pixels[: slot.rows])

    def _collect_impl(self, slot: Slot) -> Outputs:
        return self._running.pop(slot).result()

    @abstractmethod
    def _infer_impl(self, images: Images) -> Outputs:
        """Return the outputs of a batch. Called from several threads at once. Raise InferenceFailed."""
