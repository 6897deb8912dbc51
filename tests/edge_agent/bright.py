"""A detector that anybody can follow: an ONNX file that finds bright squares, for tests that need no shared model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["SIDE_PX", "write_bright"]

SIDE_PX = 32
"""Of each cell of the input, which is one box."""


def write_bright(path: Path, width: int = 320, height: int = 256) -> Path:
    """Write a model that reads as ``corners``: a cell scores near 1 where the picture is white, else near 0."""
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
    graph = helper.make_graph(
        nodes,
        "bright",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, height, width])],
        [
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, columns * rows, 2]),
            helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [1, columns * rows, 4]),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path
