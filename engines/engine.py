"""The seam for what runs a model."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from engines.exceptions import BadBatch, EngineStateError, ModelLoadFailed
from engines.repository.manifest import Model

CHANNELS = 3

Images = npt.NDArray[np.uint8]
"""``(N, height, width, channels)`` uint8: cast, layout and normalisation are part of the model."""
Outputs = Mapping[str, npt.NDArray[np.float32]]
"""Named arrays whose first axis is the batch's. They belong to the caller."""

TRIES = 3
"""Calls per batch size that are timed at warm-up, after one that is not; the quickest of them counts."""
AS_SWIFT = 1.03
"""Of batch sizes whose time per picture is within so much of the best, the largest is taken: fewer calls, and the
rest is noise."""


class Engine(ABC):
    """Runs one model. Public methods check; back ends implement the ``_impl`` methods and repeat no check.

    All methods block, for as long as the model takes. An engine belongs to one thread at a time; several engines
    of the same model may run in several threads. Order: load, warm_up, infer …, close.
    """

    def __init__(self) -> None:
        self._model: Model | None = None
        self._rows_at_once = 1

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
        self._rows_at_once = model.manifest.max_batch

    @property
    def rows_at_once(self) -> int:
        """How many pictures are run in one go: the model's largest batch, after ``warm_up`` the swiftest one.

        A GPU gains by larger batches. A core loses when what a layer hands to the next outgrows its cache: YOLOX-nano
        takes 28 % longer per picture in eights than alone.
        """
        return self._rows_at_once

    def warm_up(self) -> None:
        """Run every batch size that doubles up to the largest, check the outputs, and settle on ``rows_at_once``.

        Raise ModelLoadFailed when an output is not finite or has another number of rows.
        """
        self._rows_at_once = self.model.manifest.max_batch
        took_s = {size: self._timed(size) / size for size in sizes(self.model.manifest.max_batch)}
        self._rows_at_once = swiftest(took_s)
        if self._rows_at_once < self.model.manifest.max_batch:
            self._load_again()

    def _load_again(self) -> None:
        """Let go of what the larger batches took: half a gigabyte for YOLOX-nano in eights."""
        self._close_impl()
        self._load_impl(self.model)
        for size in sizes(self._rows_at_once):
            self._timed(size)

    def _timed(self, size: int) -> float:
        spec, took_s = self.model.manifest.input, []
        images = np.zeros((size, spec.height, spec.width, CHANNELS), np.uint8)
        for name, array in self.infer(images).items():
            if len(array) != size or not np.isfinite(array).all():
                raise ModelLoadFailed(f"{self.model.manifest.id}: output {name} of a black batch of {size} is bad")
        for _ in range(TRIES):
            started_s = time.perf_counter()
            self.infer(images)
            took_s.append(time.perf_counter() - started_s)
        return min(took_s)

    def infer(self, images: Images) -> Outputs:
        """Return the model's outputs for a batch of any size from 1.

        Batches over ``rows_at_once`` are run in parts. Raise BadBatch, InferenceFailed or EngineStateError.
        """
        manifest, most = self.model.manifest, self._rows_at_once
        expected = (manifest.input.height, manifest.input.width, CHANNELS)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != expected or not len(images):
            raise BadBatch(f"{manifest.id}: {images.dtype} {images.shape}: expected uint8 (N, {expected})")
        if len(images) <= most:
            return self._infer_impl(images)
        parts = [self._infer_impl(images[i : i + most]) for i in range(0, len(images), most)]
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


def sizes(largest: int) -> list[int]:
    """Return the batch sizes that are warmed up: 1, 2, 4 …, and the largest."""
    return [*(2**n for n in range((largest - 1).bit_length())), largest]


def swiftest(seconds_per_picture: Mapping[int, float]) -> int:
    """Return the batch size to run, from what a picture takes in each: the largest that is about as swift as any."""
    best = min(seconds_per_picture.values())
    return max(size for size, took_s in seconds_per_picture.items() if took_s <= best * AS_SWIFT)
