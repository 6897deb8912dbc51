"""Train a small convolutional classifier with Keras 3, measure its accuracy, and export the network to ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engines import noise
from training.convert.formats import keras_function, write_onnx
from training.regions import LabelledRegions

INPUT = "images"
_FILTERS = (16, 32, 64, 96)
_BATCH = 64
_LEARNING_RATE = 3e-3


def build(size: tuple[int, int], classes: int, *, synchronised: bool = False) -> Any:
    """Return an untrained network that maps uint8 BGR images to class probabilities. The first layer scales the
    pixels. ``size`` is the (width, height) of the input in px.

    The next layers are four convolutions with batch normalisation, 80,000 weights in total. Each convolution halves
    the width and the height of the image. On a CPU, training is twice as fast as with depthwise separable
    convolutions that have a third of the weights, and inference is equally fast. With ``synchronised``, batch
    normalisation computes its statistics over the pictures of all devices.
    """
    import keras
    from keras import layers

    inputs = keras.Input((size[1], size[0], 3), dtype="uint8", name=INPUT)
    x = layers.Rescaling(1 / 127.5, offset=-1.0)(inputs)
    for filters in _FILTERS:
        x = layers.Conv2D(filters, 3, strides=2, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization(synchronized=synchronised)(x))
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dropout(0.2)(x)
    return keras.Model(inputs, layers.Dense(classes, activation="softmax", name="probabilities")(x))


def fit(
    model: Any, train: LabelledRegions, validation: LabelledRegions, *, epochs: int, seed: int, verbose: int = 2
) -> None:
    """Train a network in place. Half of the images are mirrored; the learning rate follows a cosine decay."""
    import keras

    keras.utils.set_random_seed(seed)
    steps = max(1, len(train) // _BATCH) * epochs
    rate = keras.optimizers.schedules.CosineDecay(_LEARNING_RATE, steps)
    model.compile(
        keras.optimizers.Adam(rate),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=False,  # XLA is off, because on a CPU its convolutions take two to six times as long
    )
    model.fit(
        _mirrored(train.images, seed),
        train.classes,
        validation_data=(validation.images, validation.classes),
        batch_size=_BATCH,
        epochs=epochs,
        verbose=verbose,
    )


def predict(model: Any, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return the class probabilities ``(N, classes)`` of images."""
    return np.asarray(model.predict(images, batch_size=256, verbose=0), np.float32)


def export(model: Any, path: Path) -> None:
    """Write a network as an ONNX file with a free batch size and an input named ``INPUT``. Raise AdoptFailed."""
    write_onnx(path, *keras_function(model), path)


def largest_difference(model: Any, path: Path, images: npt.NDArray[np.uint8]) -> float:
    """Return the largest difference between a probability of a network and the same probability of the network's ONNX
    file."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found = session.run(["probabilities"], {INPUT: images})[0]
    return noise.largest_difference([(predict(model, images), found)])


def _mirrored(images: npt.NDArray[np.uint8], seed: int) -> npt.NDArray[np.uint8]:
    """Mirror a random half of the images, because a car that drives left looks like a mirrored car that drives
    right."""
    flipped = images.copy()
    chosen = np.random.default_rng(seed).random(len(images)) < 0.5
    flipped[chosen] = flipped[chosen, :, ::-1]
    return flipped
