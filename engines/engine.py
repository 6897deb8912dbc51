"""The seam for what runs a model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from engines.exceptions import BadBatch, EngineStateError, ModelLoadFailed
from engines.repository.manifest import Model

__all__ = ["Engine", "Images", "Outputs"]

Images = npt.NDArray[np.uint8]
"""``(N, height, width, channels)`` uint8: cast, layout and normalisation are part of the model."""
Outputs = Mapping[str, npt.NDArray[np.float32]]
"""Named arrays whose first axis is the batch's. They belong to the caller."""


class Engine(ABC):
    """Runs one model. Public methods check; back ends implement the ``_impl`` methods and repeat no check.

    All methods block, for as long as the model takes. An engine belongs to one thread at a time; several engines
    of the same model may run in several threads. Order: load, warm_up, infer …, close.
    """

    def __init__(self) -> None:
        self._model: Model | None = None

    @property
    def model(self) -> Model:
        """The model that is loaded. Raise EngineStateError when none is."""
        if self._model is None:
            raise EngineStateError(f"{type(self).__name__} has no model: call load first, and not after close")
        return self._model

    def load(self, model: Model) -> None:
        """Load a model. Raise EngineStateError when one is loaded, ModelLoadFailed when it cannot be."""
        if self._model is not None:
            raise EngineStateError(f"{type(self).__name__} has {self._model.manifest.id}: close it first")
        self._load_impl(model)
        self._model = model

    def warm_up(self) -> None:
        """Run every batch size that doubles up to the largest, and check the outputs.

        Raise ModelLoadFailed when an output is not finite or has another number of rows.
        """
        spec, size = self.model.manifest.input, 1
        while True:
            images = np.zeros((size, spec.height, spec.width, 3), np.uint8)
            for name, array in self.infer(images).items():
                if len(array) != size or not np.isfinite(array).all():
                    raise ModelLoadFailed(
                        f"{self.model.manifest.id}: output {name} of a black batch of {size} is bad"
                    )
            if size >= self.model.manifest.max_batch:
                return
            size = min(size * 2, self.model.manifest.max_batch)

    def infer(self, images: Images) -> Outputs:
        """Return the model's outputs for a batch of any size from 1.

        Batches over the model's largest are run in parts. Raise BadBatch, InferenceFailed or EngineStateError.
        """
        manifest = self.model.manifest
        expected = (manifest.input.height, manifest.input.width, 3)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != expected or not len(images):
            raise BadBatch(f"{manifest.id}: {images.dtype} {images.shape}: expected uint8 (N, {expected})")
        if len(images) <= manifest.max_batch:
            return self._infer_impl(images)
        parts = [
            self._infer_impl(images[i : i + manifest.max_batch]) for i in range(0, len(images), manifest.max_batch)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def close(self) -> None:
        """Let the model go. May be called twice."""
        if self._model is not None:
            self._model = None
            self._close_impl()

    @abstractmethod
    def _load_impl(self, model: Model) -> None: ...

    @abstractmethod
    def _infer_impl(self, images: Images) -> Outputs: ...

    @abstractmethod
    def _close_impl(self) -> None: ...
