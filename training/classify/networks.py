"""The networks to train: two built-in networks, and any Keras file as a backbone."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, NamedTuple

from engines.repository.wrap import NO_MEAN, NO_SCALE, Triple
from ingest.exceptions import ConfigError

SMALL_CNN, CLASSIC = "small-cnn", "28x28"
COMMAND = "train classifier"
Size = tuple[int, int]
"""Width and height in px."""
_CLASSIC_SIZE: Size = (28, 28)
_USUAL_SIZE: Size = (64, 64)
_BACKBONE_SIZE: Size = (224, 224)
"""Input of a backbone that accepts any size: the usual size of networks for ImageNet."""
_GREY = (0.114, 0.587, 0.299)
"""Weights of blue, green and red in a grey value (ITU-R BT.601)."""
_CENTRED: tuple[Triple, Triple] = ((127.5, 127.5, 127.5), (1 / 127.5, 1 / 127.5, 1 / 127.5))
_UNIT: Triple = (1 / 255, 1 / 255, 1 / 255)
_NORMALISING = frozenset({"Rescaling", "Normalization"})
_LOGISTIC = frozenset({"softmax", "sigmoid"})
_MIN_SIDE, _MAX_SIDE = 8, 1024
_MOMENTUM = 0.9
"""Momentum of the statistics of batch normalisation. Keras' default of 0.99 needs some hundred batches to adapt, but
some hundred pictures give fewer than twenty batches per epoch."""


class NetworkOptions(NamedTuple):
    """The network that the user chose.

    ``network`` is ``small-cnn``, ``28x28`` or the path of a Keras file. All other settings are None for the default
    of the network. ``normalisation`` holds mean and scale: the network gets ``(pixel - mean) * scale``. ``dropout``
    is the share of units that each dropout layer drops.
    """

    network: str = SMALL_CNN
    size: Size | None = None
    freeze: bool = False
    colour: Literal["bgr", "rgb"] | None = None
    normalisation: tuple[Triple, Triple] | None = None
    dropout: float | None = None


class Network(NamedTuple):
    """An untrained network with the form of its input. The network gets ``(pixel - mean) * scale``.

    A network whose input is uint8 normalises the pixels itself. ``decoder`` reads the network's output.
    """

    model: Any
    size: Size
    colour: Literal["bgr", "rgb"]
    mean: Triple
    scale: Triple
    decoder: Literal["softmax", "binary"]
    learning_rate: float


def build(options: NetworkOptions, classes: int, synchronised: bool) -> Network:
    """Return an untrained network. With ``synchronised``, batch normalisation computes its statistics over the
    pictures of all devices.

    Raise ConfigError for an input size or a number of classes that the network cannot have, or for a file that is no
    backbone.
    """
    _require_size(options.size)
    network = _built(options, classes, synchronised)
    if options.dropout is not None:
        for layer in network.model.layers:
            if type(layer).__name__ == "Dropout":
                layer.rate = options.dropout
    return network


def _built(options: NetworkOptions, classes: int, synchronised: bool) -> Network:
    if options.network in (SMALL_CNN, CLASSIC):
        if options.freeze or options.normalisation or options.colour:
            key = "--freeze" if options.freeze else "--colour" if options.colour else "--mean"
            raise ConfigError(COMMAND, key, options.network, "a backbone: --network FILE.keras")
        return _classic(options, classes) if options.network == CLASSIC else _small(options, classes, synchronised)
    return _backbone(options, classes)


def _require_size(size: Size | None) -> None:
    if size and not all(_MIN_SIDE <= side <= _MAX_SIDE for side in size):
        raise ConfigError(
            COMMAND, "--size", f"{size[0]}x{size[1]}", f"width and height from {_MIN_SIDE} to {_MAX_SIDE} px"
        )


def _small(options: NetworkOptions, classes: int, synchronised: bool) -> Network:
    from training.network import build as build_small

    size = options.size or _USUAL_SIZE
    model = build_small(size, classes, synchronised=synchronised)
    for layer in model.layers:
        if type(layer).__name__ == "BatchNormalization":
            layer.momentum = _MOMENTUM
    return Network(model, size, "bgr", NO_MEAN, NO_SCALE, "softmax", 3e-3)


def _classic(options: NetworkOptions, classes: int) -> Network:
    """Return the classic binary network: a grey picture of 28×28 px, two stages of convolution and pooling, a dense
    layer, and one sigmoid unit."""
    import keras
    import numpy as np
    from keras import layers

    if (options.size or _CLASSIC_SIZE) != _CLASSIC_SIZE:
        width, height = options.size or _CLASSIC_SIZE
        raise ConfigError(COMMAND, "--size", f"{width}x{height}", "28x28 for --network 28x28, or --network small-cnn")
    if classes != 2:
        raise ConfigError(
            COMMAND, "--network", CLASSIC, f"two labels for one sigmoid unit, found {classes}. Use {SMALL_CNN}"
        )
    inputs = keras.Input((*_CLASSIC_SIZE, 3), name="images")
    grey = layers.Conv2D(1, 1, use_bias=False, trainable=False, name="grey")
    x = grey(inputs)
    for filters in (32, 64):
        x = layers.MaxPooling2D()(layers.Conv2D(filters, 3, activation="relu")(x))
    x = layers.Dense(64, activation="relu")(layers.Flatten()(x))
    x = layers.Dense(1, activation="sigmoid", name="score")(layers.Dropout(0.3)(x))
    model = keras.Model(inputs, x)
    grey.set_weights([np.array(_GREY, np.float32).reshape(1, 1, 3, 1)])
    return Network(model, _CLASSIC_SIZE, "bgr", NO_MEAN, _UNIT, "binary", 3e-3)


def _backbone(options: NetworkOptions, classes: int) -> Network:
    """Return the network of a Keras file with a new last layer for the classes. If the file's last layer is dense
    with softmax or sigmoid, it is removed."""
    import keras
    from keras import layers

    file = Path(options.network)
    features = _features(file)
    size = _backbone_size(file, features, options.size)
    if not all(features.inputs[0].shape[1:3]):
        inputs = keras.Input((size[1], size[0], 3), name="images")
        resized = keras.models.clone_model(features, input_tensors=[inputs])
        resized.set_weights(features.get_weights())
        features = resized
    for layer in features.layers:
        layer.trainable = not options.freeze
    x = features.outputs[0]
    if len(x.shape) == 4:
        x = layers.GlobalAveragePooling2D(name="pooled_features")(x)
    elif len(x.shape) != 2:
        raise ConfigError(COMMAND, "--network", str(file), f"features (N, H, W, C) or (N, C), found {x.shape}")
    x = layers.Dropout(0.2, name="dropped_features")(x)
    model = keras.Model(features.inputs, layers.Dense(classes, activation="softmax", name="class_probabilities")(x))
    normalises = any(type(layer).__name__ in _NORMALISING for layer in features.layers)
    takes_bytes = str(features.inputs[0].dtype) == "uint8"
    usual = (NO_MEAN, NO_SCALE) if normalises or takes_bytes else _CENTRED
    mean, scale = options.normalisation or usual
    return Network(model, size, options.colour or "rgb", mean, scale, "softmax", 1e-3)


def _features(file: Path) -> Any:
    """Return the model of a Keras file without its classification layer. Raise ConfigError."""
    import keras

    if file.suffix != ".keras" or not file.is_file():
        raise ConfigError(COMMAND, "--network", str(file), f"{SMALL_CNN}, {CLASSIC}, or a .keras file that exists")
    try:
        model = keras.saving.load_model(str(file), compile=False, safe_mode=True)
        shapes = [tuple(given.shape) for given in model.inputs]
        features = keras.Model(model.inputs, _before_classes(model.outputs[0]))
    except Exception as error:  # Keras raises errors of many kinds
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ConfigError(COMMAND, "--network", str(file), f"a model that Keras can load: {reason}") from None
    if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][3] != 3:
        raise ConfigError(COMMAND, "--network", str(file), f"one input (N, H, W, 3) of pictures, found {shapes}")
    return features


def _before_classes(output: Any) -> Any:
    """Return the input of a dense last layer with softmax or sigmoid; if the last layer is of another kind, return
    ``output``."""
    last = output._keras_history.operation
    activated = type(last).__name__ == "Softmax" or (
        type(last).__name__ == "Activation" and last.activation.__name__ in _LOGISTIC
    )
    dense = last.input._keras_history.operation if activated else last
    if type(dense).__name__ != "Dense" or not (activated or dense.activation.__name__ in _LOGISTIC):
        return output
    return dense.input


def _backbone_size(file: Path, features: Any, wanted: Size | None) -> Size:
    height, width = features.inputs[0].shape[1:3]
    if not (height and width):
        return wanted or _BACKBONE_SIZE
    if wanted and wanted != (width, height):
        raise ConfigError(
            COMMAND, "--size", f"{wanted[0]}x{wanted[1]}", f"{width}x{height}, the input size of {file}"
        )
    return width, height
