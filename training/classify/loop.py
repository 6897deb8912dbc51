"""The training loop: batches in a seeded order, validation, early stop, and checkpoints.

All random numbers follow from the seed and the position in the training, and TensorFlow computes with deterministic
operations. A resumed training therefore gives the same weights as a training without interruption.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ingest.exceptions import ConfigError
from training.classify.augment import Augmentation, Strength, order_of
from training.classify.checkpoint import EpochRecord, TrainingCheckpoint, TrainingProgress, save
from training.classify.devices import Devices
from training.classify.networks import Network
from training.classify.pictures import LabelledPictures

_EVALUATION_BATCH = 256
_EVALUATION_BYTES = 2**25
"""Largest size in bytes of the pixels of a batch for validation and prediction. The layers of the network need a
multiple of this memory."""


@dataclass(frozen=True, slots=True)
class LoopOptions:
    """Settings of the training loop. With a ``learning_rate`` of 0, the usual rate of the network is used.

    Training stops after ``patience`` epochs without a lower validation loss. ``checkpoint_s`` is the time between two
    checkpoints within an epoch; each epoch also ends with a checkpoint.
    """

    epochs: int = 30
    batch: int = 32
    seed: int = 0
    augment: Strength = "light"
    flip: bool = True
    patience: int = 8
    learning_rate: float = 0.0
    checkpoint_s: float = 60.0


class _Batch(NamedTuple):
    step: int
    images: npt.NDArray[np.uint8]
    classes: npt.NDArray[np.int64]


class TrainingLoop:
    """Trains a network on the pictures of the part ``train``.

    ``on_epoch`` is called with the history after each training epoch, and ``on_batch`` after each batch. Only the
    chief, one of the workers, writes checkpoints into ``folder``.
    """

    def __init__(
        self,
        network: Network,
        pictures: LabelledPictures,
        options: LoopOptions,
        devices: Devices,
        folder: Path,
        settings: dict[str, Any],
        on_epoch: Callable[[list[EpochRecord]], None],
        on_batch: Callable[[], None],
    ) -> None:
        import keras

        self._network, self._pictures, self._options, self._devices = network, pictures, options, devices
        self._folder, self._settings, self._on_epoch, self._on_batch = folder, settings, on_epoch, on_batch
        self._train, self._validation = pictures.indices("train"), pictures.indices("validation")
        self._batch = min(options.batch, len(self._train)) // devices.replicas * devices.replicas
        if self._batch == 0 or options.batch % devices.replicas:
            raise ConfigError(
                "train classifier",
                "--batch",
                options.batch,
                f"a multiple of {devices.replicas}, the number of devices",
            )
        self.progress = TrainingProgress()
        self._best: list[npt.NDArray[Any]] = []
        rate = options.learning_rate or network.learning_rate
        with devices.strategy.scope():
            schedule = keras.optimizers.schedules.CosineDecay(rate, max(1, self.steps * options.epochs))
            self._optimiser = keras.optimizers.Adam(schedule)
            self._optimiser.build(network.model.trainable_variables)
        self._variables = [*network.model.variables, *self._optimiser.variables]
        self._step, self._evaluate = self._compiled()
        self._saved_s = self._began_s = time.monotonic()

    @property
    def steps(self) -> int:
        """Number of batches of a training epoch. If the last pictures of an epoch are too few for a batch, they are
        left out."""
        return len(self._train) // self._batch

    def restore(self, checkpoint: TrainingCheckpoint) -> None:
        """Continue from a checkpoint of the same network."""
        for variable, values in zip(self._variables, checkpoint.variables, strict=True):
            variable.assign(values)
        self.progress, self._best = checkpoint.progress, list(checkpoint.best)

    def run(self) -> None:
        """Train until the last epoch or the early stop, then load the weights of the epoch with the lowest validation
        loss."""
        progress = self.progress
        while not progress.finished:
            for batch in self._batches():
                loss, hits = self._step(*self._parts(batch))
                progress.loss += float(loss)
                progress.hits += float(hits)
                progress.step = batch.step + 1
                self._on_batch()
                if time.monotonic() - self._saved_s >= self._options.checkpoint_s and progress.step < self.steps:
                    self._save()
            self._end_epoch()
        for variable, values in zip(self._network.model.variables, self._best, strict=True):
            variable.assign(values)

    def predict(self, indices: npt.NDArray[np.intp]) -> npt.NDArray[np.float32]:
        """Return the outputs of the network for pictures, ``(N, outputs)``."""
        size = max(1, min(_EVALUATION_BATCH, _EVALUATION_BYTES // self._pictures.images[0].size))
        chunks = [indices[i : i + size] for i in range(0, len(indices), size)]
        return np.concatenate([self._evaluate(self._pictures.images[chunk]).numpy() for chunk in chunks])

    def _compiled(self) -> tuple[Any, Any]:
        """Return two compiled functions: one trains the network on a batch, the other computes the network's outputs
        for pictures."""
        import keras
        import tensorflow as tf

        model, network, strategy, batch = self._network.model, self._network, self._devices.strategy, self._batch
        variables, optimiser, replicas = model.trainable_variables, self._optimiser, self._devices.replicas
        binary = network.decoder == "binary"

        def pixels(images: Any) -> Any:
            if str(model.inputs[0].dtype) == "uint8":
                return images
            return (tf.cast(images, tf.float32) - tf.constant(network.mean)) * tf.constant(network.scale)

        def losses(classes: Any, outputs: Any) -> Any:
            if binary:
                return keras.losses.binary_crossentropy(tf.cast(classes[:, None], tf.float32), outputs)
            return keras.losses.sparse_categorical_crossentropy(classes, outputs)

        def on_replica(images: Any, classes: Any) -> tuple[Any, Any]:
            with tf.GradientTape() as tape:
                outputs = model(pixels(images), training=True)
                loss = tf.reduce_sum(losses(classes, outputs))
                total = loss / batch + sum(model.losses) / replicas
            optimiser.apply_gradients(zip(tape.gradient(total, variables), variables, strict=True))
            found = tf.cast(outputs[:, 0] >= 0.5, tf.int64) if binary else tf.argmax(outputs, axis=1)
            return loss, tf.reduce_sum(tf.cast(found == classes, tf.float32))

        @tf.function  # type: ignore[untyped-decorator]
        def step(images: Any, classes: Any) -> Any:
            loss, hits = strategy.run(on_replica, args=(images, classes))
            return strategy.reduce("SUM", loss, axis=None), strategy.reduce("SUM", hits, axis=None)

        @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
        def evaluate(images: Any) -> Any:
            return model(pixels(images), training=False)

        return step, evaluate

    def _parts(self, batch: _Batch) -> tuple[Any, Any]:
        """Return the pictures and classes of a batch in equal parts, one part for each device."""
        import tensorflow as tf

        replicas, spread = self._devices.replicas, self._devices.strategy.experimental_distribute_values_from_function
        images = spread(lambda context: tf.constant(batch.images[context.replica_id_in_sync_group :: replicas]))
        classes = spread(lambda context: tf.constant(batch.classes[context.replica_id_in_sync_group :: replicas]))
        return images, classes

    def _batches(self) -> Iterator[_Batch]:
        """Yield the batches of the training epoch, from the current step on. A thread prepares the next batch while
        the present batch is trained."""
        options, epoch = self._options, self.progress.epoch
        order = self._train[order_of(options.seed, epoch, len(self._train))]
        changes = Augmentation(options.augment, options.flip, options.seed, epoch, len(self._pictures.files))

        def prepared(step: int) -> _Batch:
            indices = order[step * self._batch : (step + 1) * self._batch]
            return _Batch(step, changes.apply(self._pictures.images, indices), self._pictures.classes[indices])

        with ThreadPoolExecutor(1) as thread:
            steps = range(self.progress.step, self.steps)
            waiting = [thread.submit(prepared, step) for step in steps[:1]]
            for step in steps:
                batch = waiting.pop().result()
                if step + 1 < self.steps:
                    waiting.append(thread.submit(prepared, step + 1))
                yield batch

    def _end_epoch(self) -> None:
        progress, options = self.progress, self._options
        seen = self.steps * self._batch
        loss, accuracy = self._validated()
        if not np.isfinite(progress.loss) or not np.isfinite(loss):
            raise ConfigError(
                "train classifier",
                "--learning-rate",
                options.learning_rate or self._network.learning_rate,
                f"a lower rate: the loss of epoch {progress.epoch + 1} is not finite",
            )
        progress.history.append(EpochRecord(progress.loss / seen, progress.hits / seen, loss, accuracy, time.time()))
        if progress.best_epoch < 0 or loss < progress.history[progress.best_epoch].validation_loss:
            progress.best_epoch = progress.epoch
            self._best = [np.asarray(variable.value) for variable in self._network.model.variables]
        waited = progress.epoch - progress.best_epoch
        progress.epoch += 1
        progress.finished = progress.epoch >= options.epochs or waited >= options.patience
        progress.step, progress.loss, progress.hits = 0, 0.0, 0.0
        self._save()
        self._on_epoch(progress.history)

    def _validated(self) -> tuple[float, float]:
        """Return the loss and the accuracy on the pictures for validation. All workers use the values of the chief,
        so that they stop at the same epoch."""
        import tensorflow as tf

        outputs, classes = self.predict(self._validation).astype(np.float64), self._pictures.classes[self._validation]
        if self._network.decoder == "binary":
            outputs = np.concatenate([1 - outputs, outputs], axis=1)
        chosen = outputs[np.arange(len(classes)), classes]
        loss = float(-np.log(np.maximum(chosen, 1e-7)).mean())
        accuracy = float((outputs.argmax(axis=1) == classes).mean())
        if self._devices.replicas == 1:
            return loss, accuracy
        strategy = self._devices.strategy
        values = strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(
                [loss, accuracy] if context.replica_id_in_sync_group == 0 else [0.0, 0.0], tf.float64
            )
        )
        shared = strategy.reduce("SUM", values, axis=None).numpy()
        return float(shared[0]), float(shared[1])

    def _save(self) -> None:
        now_s = time.monotonic()
        self.progress.spent_s += now_s - self._began_s
        self._saved_s = self._began_s = now_s
        if self._devices.chief:
            variables = [np.asarray(variable.value) for variable in self._variables]
            save(self._folder, TrainingCheckpoint(self.progress, self._settings, variables, self._best))
