"""Small ONNX detector models for tests: one finds white squares, the other always finds the same boxes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["SIDE_PX", "write_bright", "write_constant"]

SIDE_PX = 32
"""Width and height of a grid cell of the input. The model returns one box for each cell."""


def write_bright(path: Path, width: int = 320, height: int = 256) -> Path:
    """Write a model for the decoder ``corners``. A white cell has a score near 1, any other near 0."""
    columns, rows = width // SIDE_PX, height // SIDE_PX
    cells = [(x / columns, y / rows, (x + 1) / columns, (y + 1) / rows) for y in range(rows) for x in range(columns)]
    constants = {
        "grey": np.full((1, 3, 1, 1), 20 / 3, np.float32),
        "bias": np.array([-16], np.float32),
        "column": np.array([1, columns * rows, 1], np.int64),
        "minus": np.array([-1], np.float32),
        "one": np.array([1], np.float32),
        "nothing": np.array([0], np.float32),
        "cells": np.array([cells], np.float32),
    }
    nodes = [
        helper.make_node("AveragePool", ["input"], ["mean"], kernel_shape=[SIDE_PX] * 2, strides=[SIDE_PX] * 2),
        helper.make_node("Conv", ["mean", "grey", "bias"], ["logit"], kernel_shape=[1, 1]),
        helper.make_node("Sigmoid", ["logit"], ["map"]),
        helper.make_node("Reshape", ["map", "column"], ["sure"]),
        helper.make_node("Mul", ["sure", "minus"], ["negative"]),
        helper.make_node("Add", ["negative", "one"], ["unsure"]),
        helper.make_node("Concat", ["unsure", "sure"], ["scores"], axis=2),
        helper.make_node("Mul", ["sure", "nothing"], ["zero"]),
        helper.make_node("Concat", ["zero"] * 4, ["zeros"], axis=2),
        helper.make_node("Add", ["zeros", "cells"], ["boxes"]),
    ]
    return _save(path, nodes, constants, (width, height), columns * rows)


def write_constant(
    path: Path, boxes: Sequence[tuple[float, ...]], scores: Sequence[float], width: int = 320, height: int = 192
) -> Path:
    """Write a model for the decoder ``corners`` that finds the same boxes with the same scores in every picture."""
    constants = {
        "nothing": np.array([0], np.float32),
        "given scores": np.array([[(1 - score, score) for score in scores]], np.float32),
        "given boxes": np.array([boxes], np.float32),
    }
    nodes = [
        helper.make_node("GlobalAveragePool", ["input"], ["mean"]),
        helper.make_node("ReduceMean", ["mean"], ["grey"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Mul", ["grey", "nothing"], ["zero"]),
        helper.make_node("Add", ["given scores", "zero"], ["scores"]),
        helper.make_node("Add", ["given boxes", "zero"], ["boxes"]),
    ]
    return _save(path, nodes, constants, (width, height), len(boxes))


def _save(
    path: Path, nodes: list[onnx.NodeProto], constants: dict[str, Any], size: tuple[int, int], boxes: int
) -> Path:
    graph = helper.make_graph(
        nodes,
        "found",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, size[1], size[0]])],
        [
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, boxes, 2]),
            helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [1, boxes, 4]),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path
