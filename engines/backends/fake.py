"""An engine without a model: what it answers is a function of the pixels. For tests and for measuring the rest."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from engines.engine import Engine, Images, Outputs
from engines.exceptions import InferenceFailed
from engines.repository.manifest import Model


class FakeEngine(Engine):
    """Gives each picture the class of its first pixel's first channel, modulo the classes, with probability 0.9.

    ``fails`` is asked about every picture, and a batch with one that it says yes to fails as a whole.
    """

    def __init__(self, fails: Callable[[Images], bool] = lambda _: False) -> None:
        super().__init__()
        self._fails = fails
        self.calls: list[int] = []
        """The sizes of the batches it was given."""

    def _load_impl(self, model: Model) -> None:
        self.calls.clear()

    def _infer_impl(self, images: Images) -> Outputs:
        self.calls.append(len(images))
        if any(self._fails(image) for image in images):
            raise InferenceFailed("the fake engine was told to fail on this picture")
        classes = len(self.model.manifest.labels)
        chosen = images[:, 0, 0, 0].astype(int) % classes
        probabilities = np.full((len(images), classes), 0.1 / max(1, classes - 1), np.float32)
        probabilities[np.arange(len(images)), chosen] = 0.9
        return {"probabilities": probabilities}

    def _close_impl(self) -> None:
        self.calls.clear()
