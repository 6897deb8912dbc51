"""The Engine interface: load one model, run batches of images through the model.

A slot is a set of buffers for one batch. To run a batch, ``acquire`` a free slot, write the images into the slot's
``pixels``, ``submit`` the slot, ``collect`` the outputs, and ``release`` the slot. With several slots, one batch can
be filled while another batch is computed.
"""

from __future__ import annotations

import contextlib
import itertools
import queue
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from engines.exceptions import BadBatch, DeviceLost, EngineStateError, ModelLoadFailed
from engines.repository.manifest import Model
from ingest.runtime import logs

_log = logs.get("engines.engine")

CHANNELS = 3

Images = npt.NDArray[np.uint8]
"""Batch of images, ``(N, height, width, channels)`` uint8. The model itself casts, transposes and normalises the
pixels."""
Outputs = Mapping[str, npt.NDArray[np.float32]]
"""Maps the name of each model output to its array. The first axis of an array is the batch."""

TIMED_RUNS = 3
"""Number of timed runs per batch size at warm-up, after one untimed run. Warm-up uses the time of the fastest timed
run."""
SPEED_TOLERANCE = 1.1
"""A batch size and the fastest batch size count as equally fast if the ratio of their times per image is at most
``SPEED_TOLERANCE``. On a busy machine, a difference of up to 10 % is measurement noise. Of the sizes that count as
equally fast, the smallest is used, because it takes the least memory and its results come soonest: with two instances
on two cores, a batch of two images of YOLOX-nano takes twice as long as two batches of one."""
CALL_S = 0.0002
"""Time in s that each engine call takes beside the computation. ``best_batch_size`` adds the share of each image to
its time, so that models that compute an image in less than about 5 ms get larger batches."""
HOPELESS = 1.2
"""If a batch size's time per image exceeds this multiple of the best time per image, warm-up tries no larger size.

Large batches need much memory: YOLOX-nano on a CPU takes 80 MB for the buffers of each batch of eight images.
"""


class Slot:
    """Buffers of one batch. Between ``acquire`` and ``submit`` the caller may write to ``pixels``.

    ``pixels`` is ``(max_batch, height, width, 3)`` uint8. On a GPU, ``pixels`` is pinned memory. Images are written
    straight into ``pixels``, which saves a copy.
    """

    def __init__(self, pixels: Images) -> None:
        self.pixels = pixels
        self.rows = 0
        """Number of images in the submitted batch."""
        self.compute_s = 0.0
        """Time in s for which the last collected batch was computed, without its wait for earlier batches."""
        self.state: Literal["free", "acquired", "submitted", "collected"] = "free"


class ComputeClock:
    """Measures the time for which a device computes each batch, excluding the batch's wait for earlier batches.

    The device computes up to ``parallel`` batches at once, in the order of submission. A batch starts once fewer than
    ``parallel`` of the earlier batches are unfinished. Any thread may call the methods. All times are monotonic times
    in s.
    """

    def __init__(self, parallel: int) -> None:
        self._parallel = parallel
        self._running: dict[object, tuple[float, int, list[float]]] = {}
        """Maps each unfinished batch to three values: its submission time in s, the number of batches that were
        unfinished then, and the times in s at which these batches finished."""
        self._lock = threading.Lock()

    def submitted(self, batch: object, now_s: float) -> None:
        """Note that a batch was submitted."""
        with self._lock:
            self._running.pop(batch, None)
            self._running[batch] = now_s, len(self._running), []

    def finished(self, batch: object, now_s: float) -> float:
        """Note that a batch finished, and return the time in s for which the device computed the batch."""
        with self._lock:
            earlier = len(list(itertools.takewhile(lambda other: other is not batch, self._running)))
            submitted_s, before, ends = self._running.pop(batch)
            for _, _, later_ends in list(self._running.values())[earlier:]:
                later_ends.append(now_s)
        turn = before - self._parallel  # index of the batch whose end let this one start; negative: it did not wait
        return now_s - (ends[min(turn, len(ends) - 1)] if turn >= 0 and ends else submitted_s)


class Engine(ABC):
    """Base class of all engines.

    The public methods check state and arguments, so the ``_impl`` methods of backends need no checks. Call ``load``,
    then ``warm_up``, then run batches, then call ``close``. After ``load`` several threads may run batches, each with
    a slot of its own.
    """

    WARMS_UP_BESIDE_WORK: ClassVar[bool] = False
    """Whether ``finish_warm_up`` may run while other threads run batches."""

    def __init__(self, slots: int) -> None:
        self._slot_count = slots
        self._model: Model | None = None
        self._batch_size = 1
        self.warm_up_s: Mapping[int, float] = {}
        """Shortest time of a batch in s that warm-up measured, by batch size."""
        self._slots: list[Slot] = []
        self._free: queue.SimpleQueue[Slot] = queue.SimpleQueue()
        self._compute_clock = ComputeClock(self.parallel)

    @property
    def parallel(self) -> int:
        """Number of batches that the engine computes at the same time, while further submitted batches wait."""
        return 1

    @property
    def slot_count(self) -> int:
        """Maximum number of batches in flight."""
        return self._slot_count

    @property
    def model(self) -> Model:
        """The loaded model. Raise EngineStateError if no model is loaded."""
        if self._model is None:
            raise EngineStateError(f"{type(self).__name__} has no model: call load first")
        return self._model

    @property
    def batch_size(self) -> int:
        """Maximum number of images worth submitting at once. ``warm_up`` sets ``batch_size`` to the fastest size.

        Before warm-up, ``batch_size`` is the model's largest batch. A GPU takes less time per image in larger
        batches. A CPU core takes more time per image once the data between two layers exceeds the core's cache:
        YOLOX-nano takes 28 % longer per image in batches of eight than in batches of one.
        """
        return self._batch_size

    def load(self, model: Model) -> None:
        """Load a model.

        Raise EngineStateError if another model is already loaded, ModelLoadFailed if this model cannot be loaded.
        """
        if self._model is not None:
            raise EngineStateError(
                f"{type(self).__name__} has already loaded {self._model.manifest.id}: call close first"
            )
        self._load_impl(model)
        spec = model.manifest.input
        shape = (model.manifest.max_batch, spec.height, spec.width, CHANNELS)
        self._slots = [self._make_slot(shape) for _ in range(self._slot_count)]
        self._free = queue.SimpleQueue()
        for slot in self._slots:
            self._free.put(slot)
        self._model = model
        self._batch_size = model.manifest.max_batch

    def needs_build(self, model: Model) -> bool:
        """Return whether ``load`` would first build a TensorRT plan of the model, which takes minutes."""
        return False

    def cancel_build(self) -> None:  # noqa: B027  (most backends build nothing)
        """Make a present or later call of ``load`` raise BuildCancelled instead of building a TensorRT plan.

        Any thread may call this method.
        """

    def warm_up(self) -> None:
        """Run batches of doubling sizes, check the outputs, and set ``batch_size`` to the fastest size.

        Raise ModelLoadFailed if an output contains a number that is not finite, or does not have one row per image.
        """
        self.begin_warm_up()
        self.finish_warm_up()

    def begin_warm_up(self) -> None:
        """Do the first part of ``warm_up``: run single images and one batch of two, and set ``batch_size`` to 1."""
        self._batch_size = 1
        self._run_black(min(2, self.model.manifest.max_batch))
        self.warm_up_s = {1: self._run_black(1)}

    def finish_warm_up(self) -> None:
        """Do the second part of ``warm_up``: time all sizes, and set ``batch_size`` to the fastest size.

        Finally run every size up to ``batch_size`` once, because many backends prepare an input shape at its first
        use. If ``WARMS_UP_BESIDE_WORK`` is set, other threads may run batches meanwhile.
        """
        seconds_per_image: dict[int, float] = {}
        for size in warm_up_sizes(self.model.manifest.max_batch):
            seconds_per_image[size] = self._timed_run(size) / size
            if seconds_per_image[size] > HOPELESS * min(seconds_per_image.values()):
                break
        best = best_batch_size(seconds_per_image)
        for size in range(best, 0, -1):
            self._run_black(size)
        self._trim_impl()
        self.warm_up_s = {size: took_s * size for size, took_s in seconds_per_image.items()}
        self._batch_size = best

    def acquire(self) -> Slot:
        """Return a free slot. Block until a slot is free. Raise EngineStateError if no model is loaded."""
        self.model  # noqa: B018  (raises without a model)
        slot = self._free.get()
        slot.state = "acquired"
        return slot

    def submit(self, slot: Slot, rows: int) -> None:
        """Start to compute the first ``rows`` images in an acquired slot, and return at once.

        An engine whose library computes in the calling thread computes in ``collect`` instead. Do not write to the
        slot before its release. Raise BadBatch if ``rows`` is 0 or more than the slot can hold, EngineStateError if
        the slot is not acquired.
        """
        self._require(slot, "acquired")
        if not 0 < rows <= len(slot.pixels):
            raise BadBatch(
                f"batch for model {self.model.manifest.id} has {rows} rows: expected 1 to {len(slot.pixels)}"
            )
        slot.rows, slot.state = rows, "submitted"
        self._compute_clock.submitted(slot, time.perf_counter())
        self._submit_impl(slot)

    def collect(self, slot: Slot) -> Outputs:
        """Wait for the batch in a submitted slot, and return the model's outputs. The arrays are valid until the slot
        is released.

        Raise InferenceFailed if the batch failed, DeviceLost if no batch can succeed any more in this process.
        """
        self._require(slot, "submitted")
        slot.state = "collected"
        try:
            return self._collect_impl(slot)
        finally:
            slot.compute_s = self._compute_clock.finished(slot, time.perf_counter())

    def release(self, slot: Slot) -> None:
        """Make a slot free for the next batch. Raise EngineStateError while the slot's batch is in flight."""
        self._require(slot, "acquired", "collected")
        slot.state = "free"
        self._free.put(slot)

    @contextlib.contextmanager
    def slot(self) -> Iterator[Slot]:
        """Acquire a slot for a ``with`` block, and release the slot at the end of the block.

        If the block ends with a submitted batch that was not collected, wait for the batch. If the device is lost
        while this method waits for the batch, raise DeviceLost in place of the block's own error.
        """
        slot = self.acquire()
        try:
            yield slot
        finally:
            try:
                if slot.state == "submitted":
                    self._collect_quietly(slot)
            finally:
                self.release(slot)

    def run(self, slot: Slot, rows: int) -> Outputs:
        """Submit an acquired slot and collect its outputs."""
        self.submit(slot, rows)
        return self.collect(slot)

    def infer(self, images: Images) -> Outputs:
        """Return the model's outputs for a batch of one image or more.

        The arrays are copies, which later batches do not overwrite. A batch larger than ``batch_size`` is computed in
        several parts. Raise BadBatch, InferenceFailed or EngineStateError.
        """
        manifest, most = self.model.manifest, self._batch_size
        expected = (manifest.input.height, manifest.input.width, CHANNELS)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != expected or not len(images):
            shape = f"(N, {', '.join(map(str, expected))})"
            raise BadBatch(f"batch for model {manifest.id} is {images.dtype} {images.shape}: expected uint8 {shape}")
        parts: list[Outputs] = []
        for part in (images[i : i + most] for i in range(0, len(images), most)):
            with self.slot() as slot:
                slot.pixels[: len(part)] = part
                parts.append({name: array.copy() for name, array in self.run(slot, len(part)).items()})
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def close(self) -> None:
        """Release the model. A second call does nothing. Raise EngineStateError while a batch is in flight."""
        if self._model is None:
            return
        if any(slot.state == "submitted" for slot in self._slots):
            raise EngineStateError(
                f"model {self._model.manifest.id} has submitted batches: collect them before close"
            )
        self._model = None
        self._slots.clear()
        self._close_impl()

    def _collect_quietly(self, slot: Slot) -> None:
        """Wait for a batch whose outputs nobody needs any more, because its caller has raised an error. Raise
        DeviceLost only."""
        try:
            self.collect(slot)
        except DeviceLost:
            raise
        except Exception as error:
            _log.debug("batch_failed_after_error", error=repr(error))

    def _require(self, slot: Slot, *states: str) -> None:
        if slot not in self._slots:
            raise EngineStateError(
                f"the batch slot belongs to another engine or model: acquire a slot of {type(self).__name__}"
            )
        if slot.state not in states:
            raise EngineStateError(f"the batch slot is {slot.state}: expected {' or '.join(states)}")

    def _timed_run(self, size: int) -> float:
        """Run a batch of black images once untimed, then ``TIMED_RUNS`` times timed, and return the shortest time in
        s."""
        self._run_black(size)
        return min(self._run_black(size) for _ in range(TIMED_RUNS))

    def _run_black(self, size: int) -> float:
        """Run a batch of ``size`` black images, check the outputs, and return the computing time in s, which excludes
        the wait for other batches."""
        with self.slot() as slot:
            slot.pixels[:size] = 0
            for name, array in self.run(slot, size).items():
                if len(array) != size or not np.isfinite(array).all():
                    raise ModelLoadFailed(
                        f"model {self.model.manifest.id}: output {name} has shape {array.shape} for {size} black "
                        f"images: expected {size} rows of finite numbers"
                    )
            return slot.compute_s

    def _make_slot(self, shape: tuple[int, int, int, int]) -> Slot:
        """Return a slot for the model that has just been loaded. An override for a GPU allocates the slot in pinned
        memory."""
        return Slot(np.zeros(shape, np.uint8))

    def _trim_impl(self) -> None:  # noqa: B027  (most backends have nothing to free)
        """Free memory that only warm-up needed."""

    @abstractmethod
    def _load_impl(self, model: Model) -> None: ...

    @abstractmethod
    def _submit_impl(self, slot: Slot) -> None: ...

    @abstractmethod
    def _collect_impl(self, slot: Slot) -> Outputs: ...

    @abstractmethod
    def _close_impl(self) -> None: ...


def warm_up_sizes(largest: int) -> list[int]:
    """Return the batch sizes to warm up: the powers of two below ``largest``, then ``largest``."""
    return [*(2**n for n in range((largest - 1).bit_length())), largest]


def best_batch_size(seconds_per_image: Mapping[int, float]) -> int:
    """Return the smallest batch size whose time per image is at most ``SPEED_TOLERANCE`` times the best.

    Both times include a share of ``CALL_S``.
    """
    with_call_s = {size: took_s + CALL_S / size for size, took_s in seconds_per_image.items()}
    best_s = min(with_call_s.values())
    return min(size for size, took_s in with_call_s.items() if took_s <= best_s * SPEED_TOLERANCE)
