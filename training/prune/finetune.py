"""Fine-tune a pruned Keras model on pictures, and optionally set its smallest weights to zero.

If the pictures have labels, the model learns the labels. Without labels, the model learns the outputs of the original
model (Hinton et al., 2015, https://arxiv.org/abs/1503.02531), which works for detectors too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from engines.engine import Images
from engines.exceptions import OptimiseFailed
from engines.repository.wrap import Triple

_BATCH = 32
_LEARNING_RATE = 5e-4
"""Highest learning rate of Adam, a sixth of the rate for training from scratch in ``training.network``, because most
weights are already good."""
_MOMENTUM = 0.9
"""Momentum of the statistics of batch normalisation. Keras' default of 0.99 needs some hundred batches to adapt, but
a fine-tuning is short."""
_SUM_TOLERANCE = 0.01
_PRUNED_KINDS = frozenset({"Conv2D", "Dense"})


class Pixels:
    """Pictures as the Keras model takes them: ``(pixel - mean) * scale`` in the colour order of the manifest."""

    def __init__(self, pictures: Sequence[Images], mean: Triple, scale: Triple, dtype: str) -> None:
        self._pictures, self._mean, self._scale, self._dtype = pictures, mean, scale, dtype

    def __len__(self) -> int:
        return len(self._pictures)

    def take(self, indices: Sequence[int] | npt.NDArray[np.intp]) -> npt.NDArray[Any]:
        """Return the pictures of these indices in one array."""
        images = np.concatenate([self._pictures[int(i)] for i in indices])
        if self._dtype == "uint8":
            return images
        return ((images.astype(np.float32) - self._mean) * self._scale).astype(self._dtype)


def fine_tune(
    model: Any,
    original: Any,
    pixels: Pixels,
    classes: npt.NDArray[np.int64] | None,
    *,
    epochs: int,
    sparsity: float = 0.0,
    on_batch: Callable[[], None] = lambda: None,
) -> None:
    """Train a pruned model in place. Raise OptimiseFailed if the loss of the training is not finite.

    ``classes`` are the indices of the labels, or None to learn from ``original``. With ``sparsity``, this share of
    the weights of each convolution and dense layer becomes zero, step by step, and stays zero.
    """
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(0)
    steps = batches_of(len(pixels), epochs)
    losses = _losses(original, pixels, classes)
    rate = keras.optimizers.schedules.CosineDecay(_LEARNING_RATE, max(1, steps))
    optimiser = keras.optimizers.Adam(rate)
    masks = _Masks(model, sparsity)
    momenta = _follow_statistics(model)
    variables = model.trainable_variables

    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
    def step(images: Any, targets: list[Any]) -> Any:
        with tf.GradientTape() as tape:
            outputs = _flat(model(images, training=True))
            loss = tf.add_n([tf.reduce_mean(f(t, o)) for f, t, o in zip(losses, targets, outputs, strict=True)])
        optimiser.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss

    random = np.random.default_rng(0)
    done = 0
    for _ in range(epochs):
        order = random.permutation(len(pixels))
        for start in range(0, len(order), _BATCH):
            chosen = order[start : start + _BATCH]
            images = pixels.take(chosen)
            targets = _targets(original, images, None if classes is None else classes[chosen])
            loss = float(step(tf.constant(images), [tf.constant(target) for target in targets]))
            if not np.isfinite(loss):
                raise OptimiseFailed(f"fine-tuning diverged, loss {loss}: expected a finite loss. Prune less")
            done += 1
            masks.apply(done / steps)
            on_batch()
    masks.apply(1.0)
    for layer, momentum in momenta:
        layer.momentum = momentum


def batches_of(pictures: int, epochs: int) -> int:
    """Return the number of batches of a fine-tuning."""
    return epochs * -(-pictures // _BATCH)


def weight_sparsity(model: Any) -> float:
    """Return the share of zeros among the weights of convolutions and dense layers."""
    kernels = [np.asarray(layer.get_weights()[0]) for layer in model.layers if _is_pruned(layer)]
    total = sum(kernel.size for kernel in kernels)
    return round(sum(int((kernel == 0).sum()) for kernel in kernels) / total, 4) if total else 0.0


class _Masks:
    """Masks that show which weights stay and which weights are set to zero.

    During the first half of the training, the share of zero weights follows the cubic schedule of Zhu and Gupta
    (2017, https://arxiv.org/abs/1710.01878).
    """

    _UPDATES = 20

    def __init__(self, model: Any, sparsity: float) -> None:
        self._layers = [layer for layer in model.layers if _is_pruned(layer)][:-1] if sparsity else []
        self._sparsity, self._updated = sparsity, -1
        self._masks: dict[str, npt.NDArray[np.float32]] = {}

    def apply(self, progress: float) -> None:
        """Set weights to zero as the schedule demands. ``progress`` is the finished share of the training, 0..1."""
        grown = min(1.0, 2 * progress)
        update = int(grown * self._UPDATES)
        for layer in self._layers:
            kernel = np.asarray(layer.kernel)
            if update != self._updated:
                share = self._sparsity * (1 - (1 - grown) ** 3)
                self._masks[layer.name] = largest_mask(kernel, share)
            layer.kernel.assign(kernel * self._masks[layer.name])
        self._updated = update


def largest_mask(kernel: npt.NDArray[np.float32], share: float) -> npt.NDArray[np.float32]:
    """Return a mask with 0 for the ``share`` of the weights with the smallest magnitude, and 1 for all other
    weights."""
    count = int(share * kernel.size)
    mask = np.ones(kernel.size, np.float32)
    mask[np.argsort(np.abs(kernel).ravel(), kind="stable")[:count]] = 0.0
    return mask.reshape(kernel.shape)


def _follow_statistics(model: Any) -> list[tuple[Any, float]]:
    """Lower the momentum of batch normalisation layers, so that their statistics follow the pruned model quickly.
    Return each layer with its original momentum."""
    momenta = [(layer, layer.momentum) for layer in model.layers if type(layer).__name__ == "BatchNormalization"]
    for layer, momentum in momenta:
        layer.momentum = min(momentum, _MOMENTUM)
    return momenta


def _is_pruned(layer: Any) -> bool:
    """Return whether pruning removes weights of a layer. A layer that cannot be trained only prepares the pixels, so
    it keeps its weights."""
    return type(layer).__name__ in _PRUNED_KINDS and layer.trainable


def _flat(outputs: Any) -> list[Any]:
    if isinstance(outputs, dict):
        return list(outputs.values())
    return list(outputs) if isinstance(outputs, list | tuple) else [outputs]


def _targets(
    original: Any, images: npt.NDArray[Any], classes: npt.NDArray[np.int64] | None
) -> list[npt.NDArray[Any]]:
    if classes is None:
        return [np.asarray(output, np.float32) for output in _flat(original(images, training=False))]
    count = int(original.outputs[0].shape[-1])
    if count == 1:  # one unit, the score of the second label
        return [classes[:, None].astype(np.float32)]
    return [np.eye(count, dtype=np.float32)[classes]]


def _losses(original: Any, pixels: Pixels, classes: npt.NDArray[np.int64] | None) -> list[Any]:
    """Return the loss of each output: cross-entropy for classes, else the squared difference."""
    import keras

    outputs = [np.asarray(o) for o in _flat(original(pixels.take(range(min(len(pixels), 4))), training=False))]
    if classes is not None and (len(outputs) != 1 or outputs[0].ndim != 2):
        raise OptimiseFailed(
            f"the model has outputs of shape {[o.shape[1:] for o in outputs]}: expected one number for each class. "
            "Folders by class can train only a classifier. For another model, put all pictures into one folder"
        )
    found = []
    for values in outputs:
        exclusive = values.ndim == 2 and values.min() >= 0 and np.abs(values.sum(axis=1) - 1).max() < _SUM_TOLERANCE
        if exclusive and values.shape[1] > 1:
            found.append(keras.losses.categorical_crossentropy)
        elif classes is not None and values.min() >= 0 and values.max() <= 1:
            found.append(keras.losses.binary_crossentropy)
        elif classes is not None:
            found.append(lambda t, o: keras.losses.categorical_crossentropy(t, o, from_logits=True))
        else:
            found.append(keras.losses.mean_squared_error)
    return found
