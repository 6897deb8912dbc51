"""A fake engine whose outputs depend only on the pixels of the input.

Tests and benchmarks of the pipeline use the fake engine, because the fake engine needs no model.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from engines.backends.blocking import BlockingEngine
from engines.engine import Images, Outputs
from engines.exceptions import InferenceFailed
from engines.repository.manifest import Model


def unavailable_reason() -> str:
    """Return an empty text, because the fake engine is always available."""
    return ""


class FakeEngine(BlockingEngine):
    """Fake classifier that needs no model file.

    The class of an image is the value of the first channel of its first pixel, modulo the number of classes. The
    probability of this class is 0.9. If ``fails(image)`` returns true for any image of a batch, the inference of the
    whole batch raises InferenceFailed.
    """

    def __init__(self, workers: int = 1, fails: Callable[[Images], bool] = lambda _: False) -> None:
        super().__init__(workers)
        self._fails = fails
        self._classes = 0

    def _load_impl(self, model: Model) -> None:
        self._classes = len(model.manifest.labels)

    def _infer_impl(self, images: Images) -> Outputs:
        if any(self._fails(image) for image in images):
            raise InferenceFailed("the fake engine is configured to fail on this image")
        chosen = images[:, 0, 0, 0].astype(int) % self._classes
        probabilities = np.full((len(images), self._classes), 0.1 / max(1, self._classes - 1), np.float32)
        probabilities[np.arange(len(images)), chosen] = 0.9
        return {"probabilities": probabilities}

    def _close_impl(self) -> None:
        self._classes = 0
