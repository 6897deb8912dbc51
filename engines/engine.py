"""The Engine interface: load one model, run batches of images through the model."""

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
"""``(N, height, width, channels)`` uint8. The model itself casts, transposes and normalises the pixels."""
Outputs = Mapping[str, npt.NDArray[np.float32]]
"""Output arrays by name. The first axis of an array is the batch. The caller owns the arrays."""

TIMED_RUNS = 3
"""Number of timed runs per batch size at warm-up, after one untimed run. The fastest run counts."""
SPEED_TOLERANCE = 1.03
"""Maximum ratio of a batch size's time per image to the best time, up to which the size counts as equally fast. A
difference of 3 % is noise. Of equally fast sizes the largest is used, because it needs the fewest calls."""


class Engine(ABC):
    """Base class of all engines.

    The public methods check state and arguments. Backends implement the ``_impl`` methods without such checks. All
    methods block until the model has run. An engine belongs to one thread at a time. Several engines of the same
    model may run in several threads. Call order: load, warm_up, infer …, close.
    """

    def __init__(self) -> None:
        self._model: Model | None = None
        self._batch_size = 1

    @property
    def model(self) -> Model:
        """The loaded model. Raise EngineStateError if none is loaded."""
        if self._model is None:
            raise EngineStateError(f"{type(self).__name__} has no model: call load first")
        return self._model

    def load(self, model: Model) -> None:
        """Load a model.

        Raise EngineStateError if another model is already loaded, ModelLoadFailed if this model cannot be loaded.
        """
        if self._model is not None:
            raise EngineStateError(f"{type(self).__name__} already has {self._model.manifest.id}: close it first")
        self._load_impl(model)
        self._model = model
        self._batch_size = model.manifest.max_batch

    @property
    def batch_size(self) -> int:
        """Maximum number of images per call of the backend. ``warm_up`` sets it to the fastest size.

        Before warm-up it is the model's largest batch. A GPU gains from larger batches. A CPU core is slower once the
        data between two layers exceeds its cache: YOLOX-nano takes 28 % longer per image in batches of eight than
        alone.
        """
        return self._batch_size

    def warm_up(self) -> None:
        """Run batches of doubling sizes up to the largest, check the outputs, and set ``batch_size``.

        Raise ModelLoadFailed if an output is not finite or has the wrong number of rows.
        """
        largest = self.model.manifest.max_batch
        self._batch_size = largest
        seconds_per_image = {size: self._timed_run(size) / size for size in warm_up_sizes(largest)}
        self._batch_size = best_batch_size(seconds_per_image)
        if self._batch_size < largest:
            # Reload the model to free the buffers of the larger batches: 500 MB for YOLOX-nano in batches of eight.
            self._close_impl()
            self._load_impl(self.model)
            for size in warm_up_sizes(self._batch_size):
                self._timed_run(size)

    def infer(self, images: Images) -> Outputs:
        """Return the model's outputs for a batch of at least one image.

        Batches larger than ``batch_size`` run in several calls of the backend. Raise BadBatch, InferenceFailed or
        EngineStateError.
        """
        manifest, most = self.model.manifest, self._batch_size
        expected = (manifest.input.height, manifest.input.width, CHANNELS)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != expected or not len(images):
            shape = f"(N, {', '.join(map(str, expected))})"
            raise BadBatch(f"batch for {manifest.id} is {images.dtype} {images.shape}: expected uint8 {shape}")
        if len(images) <= most:
            return self._infer_impl(images)
        chunks = [self._infer_impl(images[i : i + most]) for i in range(0, len(images), most)]
        return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}

    def close(self) -> None:
        """Release the model. May be called twice."""
        if self._model is not None:
            self._model = None
            self._close_impl()

    def _timed_run(self, size: int) -> float:
        """Check the outputs for a batch of black images, and return the shortest of ``TIMED_RUNS`` times in
        seconds."""
        spec, durations_s = self.model.manifest.input, []
        images = np.zeros((size, spec.height, spec.width, CHANNELS), np.uint8)
        for name, array in self.infer(images).items():
            if len(array) != size or not np.isfinite(array).all():
                raise ModelLoadFailed(
                    f"model {self.model.manifest.id}: output {name} has shape {array.shape} for {size} black images: "
                    f"expected {size} rows of finite numbers"
                )
        for _ in range(TIMED_RUNS):
            started_s = time.perf_counter()
            self.infer(images)
            durations_s.append(time.perf_counter() - started_s)
        return min(durations_s)

    @abstractmethod
    def _load_impl(self, model: Model) -> None: ...

    @abstractmethod
    def _infer_impl(self, images: Images) -> Outputs: ...

    @abstractmethod
    def _close_impl(self) -> None: ...


def warm_up_sizes(largest: int) -> list[int]:
    """Return the batch sizes to warm up: the powers of two below ``largest``, then ``largest``."""
    return [*(2**n for n in range((largest - 1).bit_length())), largest]


def best_batch_size(seconds_per_image: Mapping[int, float]) -> int:
    """Return the largest batch size whose time per image is within ``SPEED_TOLERANCE`` of the best."""
    best_s = min(seconds_per_image.values())
    return max(size for size, took_s in seconds_per_image.items() if took_s <= best_s * SPEED_TOLERANCE)
