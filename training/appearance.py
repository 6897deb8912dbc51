"""Build the shipped model of colour appearance, which describes an object by the colours of its parts.

The model is computed, not trained: soft colour histograms of three bands (upper, middle and lower part of the crop),
which overlap. A pixel belongs to each colour of a palette to a degree that falls with their distance, so a small
change of light changes the histogram little.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

Floats = npt.NDArray[np.float32]

WIDTH_PX, HEIGHT_PX = 64, 128
_POOL_PX = 4
"""Side in px of the blocks that are averaged first, against noise and the artefacts of JPEG."""
BANDS = (0.27, 0.5, 0.75)
"""Centres of the bands, as shares of the height: chest, hips and legs of a person. The head is left out, because hair
and skin distinguish few people in a small picture."""
_BAND_WIDTH = 0.11
_COLUMN_WIDTH = 0.2
"""Standard deviations of the weights of a pixel around the centre of a band, as a share of the height, and around the
middle column, as a share of the width. The background beside a person counts little."""
_GREYS = 6
_HUES = 12
_LIGHTS = ((0.25, 0.18), (0.5, 0.3), (0.75, 0.18))
"""Lightness and chroma of the coloured entries of the palette, 0..1."""
_WEIGHTS = np.array([0.5, 2.0, 2.0], np.float32)
"""Weights of differences in lightness and in chroma. Shadows and lamps change the lightness more than the chroma."""
_SOFTNESS = 0.1
"""Standard deviation of the degree to which a pixel belongs to a colour of the palette."""
_OPSET, _IR = 17, 8


def palette() -> Floats:
    """Return the colours of the palette ``(K, 3)``: lightness 0..1, and two coordinates of chroma around 0."""
    greys = [(n / (_GREYS - 1), 0.0, 0.0) for n in range(_GREYS)]
    angles = [2.0 * math.pi * n / _HUES for n in range(_HUES)]
    hues = [
        (light, chroma * math.cos(angle), chroma * math.sin(angle))
        for (light, chroma), angle in itertools.product(_LIGHTS, angles)
    ]
    return np.array([*greys, *hues], np.float32)


def to_opponent() -> Floats:
    """Return the matrix ``(3, 3)`` from BGR, 0..1, to lightness and two coordinates of chroma (ITU-R BT.601)."""
    return np.array([[0.114, 0.587, 0.299], [0.5, -0.331, -0.169], [-0.081, -0.419, 0.5]], np.float32)


def weights() -> Floats:
    """Return the weight of each block in each band, ``(blocks, bands)``, which sum to 1 in each band."""
    rows, columns = HEIGHT_PX // _POOL_PX, WIDTH_PX // _POOL_PX
    y = (np.arange(rows) + 0.5)[:, None] / rows
    x = (np.arange(columns) + 0.5)[None, :] / columns
    beside = np.exp(-0.5 * ((x - 0.5) / _COLUMN_WIDTH) ** 2)
    each = [np.exp(-0.5 * ((y - band) / _BAND_WIDTH) ** 2) * beside for band in BANDS]
    return np.stack([(one / one.sum()).ravel() for one in each], axis=1).astype(np.float32)


def colour_layer() -> tuple[Floats, Floats]:
    """Return the kernel ``(K, 3, 1, 1)`` and bias ``(K,)`` of a convolution of BGR, 0..1, whose softmax is the degree
    to which a pixel belongs to each colour of the palette.

    The degree of a colour falls with the square of its distance d as exp(-d² / (2 s²)). In the softmax over the
    colours, the square of the pixel's own colour cancels, so a linear layer suffices.
    """
    colours = palette() * _WEIGHTS
    to_scaled = to_opponent() * _WEIGHTS[:, None]
    kernel = colours @ to_scaled / _SOFTNESS**2
    bias = -(colours**2).sum(axis=1) / (2.0 * _SOFTNESS**2)
    return kernel[:, :, None, None].astype(np.float32), bias.astype(np.float32)


def build() -> Any:
    """Return the ONNX model: ``images`` (N, 128, 64, 3) uint8 BGR to ``embedding`` (N, D), the shares of
    the D / 3 colours of the palette in the three bands. The same code gives the same model."""
    kernel, bias = colour_layer()
    count = len(bias)
    constants = {
        "kernel": kernel,
        "bias": bias,
        "white": np.array(255.0, np.float32),
        "weights": weights(),
        "pixels": np.array([0, count, -1], np.int64),
        "flat": np.array([0, count * len(BANDS)], np.int64),
    }
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["planes"], ["blocks"], kernel_shape=[_POOL_PX] * 2, strides=[_POOL_PX] * 2),
        helper.make_node("Div", ["blocks", "white"], ["light"]),
        helper.make_node("Conv", ["light", "kernel", "bias"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["degrees"], axis=1),
        helper.make_node("Reshape", ["degrees", "pixels"], ["colours"]),
        helper.make_node("MatMul", ["colours", "weights"], ["shares"]),
        helper.make_node("Reshape", ["shares", "flat"], ["embedding"]),
    ]
    graph = helper.make_graph(
        nodes,
        "appearance",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ("N", HEIGHT_PX, WIDTH_PX, 3))],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ("N", count * len(BANDS)))],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR)
    onnx.checker.check_model(model)
    return model
