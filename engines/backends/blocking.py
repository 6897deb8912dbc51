"""Base class of the engines whose library computes in the calling thread."""

from __future__ import annotations

import threading
from abc import abstractmethod

from engines.backends.hardware import cpu_slots
from engines.engine import Engine, Images, Outputs, Slot


class BlockingEngine(Engine):
    """Engine that computes a batch in the thread that collects the batch, up to ``workers`` batches at the same time.

    A thread of the engine's own would cost two more thread switches per batch. By default, the engine has
    ``cpu_slots(workers)`` slots (sets of buffers for one batch), so that a further thread can fill or decode a batch
    while ``workers`` threads compute, if a core is left for it.
    """

    def __init__(self, workers: int = 1, slots: int | None = None) -> None:
        self._workers = workers
        super().__init__(slots=slots or cpu_slots(workers))
        self._turns = threading.Semaphore(workers)

    @property
    def parallel(self) -> int:
        """Number of batches that the engine computes at the same time."""
        return self._workers

    def _submit_impl(self, slot: Slot) -> None:
        """Do nothing: ``collect`` computes the batch."""

    def _collect_impl(self, slot: Slot) -> Outputs:
        with self._turns:
            return self._infer_impl(slot.pixels[: slot.rows])

    @abstractmethod
    def _infer_impl(self, images: Images) -> Outputs:
        """Compute and return the outputs of a batch.

        Several threads call this method at the same time. Raise InferenceFailed.
        """
