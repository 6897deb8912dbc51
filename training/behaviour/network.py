"""Train a recurrent classifier of people's behaviour with Keras 3, and export it to ONNX."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stream.analyse.behaviour.model import INPUT, LABELS
from stream.analyse.behaviour.window import FEATURES, STEPS, Windows
from training.behaviour.people import BEHAVIOURS
from training.behaviour.tracks import TrackExamples
from training.convert.formats import write_onnx

OUTPUT = "probabilities"
_INNER, _UNITS = 32, 64
_BATCH = 256
_LEARNING_RATE = 3e-3
_SIDEWAYS = (1, 5)
"""Features of a window that change their sign in a mirrored picture: horizontal distance and horizontal speed."""


def build(seed: int) -> Any:
    """Return an untrained network that maps windows ``(N, STEPS, FEATURES)`` to the probabilities of the behaviours.

    The network is an LSTM. A GRU of Keras is as accurate, but its ONNX file has a loop of small operators, which
    takes eight times as long as ONNX's own operator LSTM.
    """
    import keras
    from keras import layers

    keras.utils.set_random_seed(seed)
    inputs = keras.Input((STEPS, FEATURES), name=INPUT)
    x = layers.Dense(_INNER, activation="relu")(inputs)
    x = layers.LSTM(_UNITS)(x)
    x = layers.Dropout(0.2)(x)
    x = layers.Dense(_INNER, activation="relu")(x)
    return keras.Model(inputs, layers.Dense(len(BEHAVIOURS), activation="softmax", name=OUTPUT)(x))


def fit(
    model: Any, train: TrackExamples, *, epochs: int, seed: int, on_epoch: Callable[[], None] = lambda: None
) -> None:
    """Train a behaviour network in place. Half of the training windows are mirrored. The learning rate follows a
    cosine decay.

    ``on_epoch`` is called after each training epoch. Two trainings with the same seed on one machine give equal
    networks.
    """
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(seed + 1)
    tf.config.experimental.enable_op_determinism()
    windows = train.windows.copy()
    windows[::2, :, _SIDEWAYS] *= -1.0
    steps = max(1, len(windows) // _BATCH) * epochs
    rate = keras.optimizers.schedules.CosineDecay(_LEARNING_RATE, steps)
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", jit_compile=False)
    done = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: on_epoch())
    model.fit(windows, train.behaviours, batch_size=_BATCH, epochs=epochs, verbose=0, callbacks=[done])


def predict(model: Any, windows: Windows) -> npt.NDArray[np.float32]:
    """Return the probabilities ``(N, behaviours)`` that a network gives for windows."""
    return np.asarray(model.predict(windows, batch_size=512, verbose=0), np.float32)


def export(model: Any, path: Path) -> None:
    """Write a behaviour network as an ONNX file, which also names the behaviours. Raise AdoptFailed."""
    import onnx
    import tensorflow as tf

    spec = tf.TensorSpec((None, STEPS, FEATURES), tf.float32, name=INPUT)

    def compute(windows: Any) -> dict[str, Any]:
        return {OUTPUT: model(windows, training=False)}

    write_onnx(path, tf.function(compute, input_signature=[spec]), spec, path)
    proto = onnx.load(str(path))
    entry = proto.metadata_props.add()
    entry.key, entry.value = LABELS, ",".join(BEHAVIOURS)
    path.write_bytes(proto.SerializeToString(deterministic=True))
