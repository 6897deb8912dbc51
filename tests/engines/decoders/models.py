"""ONNX models of any output layout, for tests: every image gives the same outputs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def constant_model(path: Path, outputs: Mapping[str, np.ndarray], size: int = 64) -> Path:
    """Write a model of NCHW images of any batch size. ``outputs`` are the arrays of one image."""
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
    ]
    weights = [numpy_helper.from_array(np.zeros(1, np.float32), "zero")]
    declared = []
    for name, values in outputs.items():
        column = np.array([-1, *(1 for _ in values.shape)], np.int64)
        weights += [
            numpy_helper.from_array(column, f"{name}_column"),
            numpy_helper.from_array(values[None].astype(np.float32), f"{name}_table"),
        ]
        nodes += [
            helper.make_node("Reshape", ["nothing", f"{name}_column"], [f"{name}_nothing"]),
            helper.make_node("Add", [f"{name}_nothing", f"{name}_table"], [name]),
        ]
        declared.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ("N", *values.shape)))
    images = helper.make_tensor_value_info("x", TensorProto.FLOAT, ("N", 3, size, size))
    graph = helper.make_graph(nodes, "constant", [images], declared, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path
