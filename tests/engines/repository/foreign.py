"""Small foreign ONNX models for tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

KINDS = {np.float32: TensorProto.FLOAT, np.float16: TensorProto.FLOAT16, np.uint8: TensorProto.UINT8}


def write(
    path: Path,
    nodes: Sequence[Any],
    shape: Sequence[int | str],
    outputs: dict[str, Sequence[int | str]],
    weights: dict[str, np.ndarray] | None = None,
    dtype: type = np.float32,
    opset: int = 17,
    metadata: dict[str, str] | None = None,
) -> Path:
    """Write a model with an input ``x`` of a type and shape, and outputs of that type (float for uint8)."""
    kind = KINDS[dtype]
    out = TensorProto.FLOAT if dtype is np.uint8 else kind
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info(name, out, dims) for name, dims in outputs.items()],
        [numpy_helper.from_array(values, name) for name, values in (weights or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    for key, value in (metadata or {}).items():
        model.metadata_props.add(key=key, value=value)
    onnx.save(model, str(path))
    return path


def classifier(
    path: Path,
    shape: Sequence[int | str] = ("N", 3, 8, 8),
    dtype: type = np.float32,
    first: Sequence[Any] = (),
    metadata: dict[str, str] | None = None,
) -> Path:
    """Write a classifier of three classes: the softmax of the mean of each colour.

    ``first`` holds the nodes that compute ``prepared`` from ``x``.
    """
    axes = [1, 2] if shape[3] == 3 else [2, 3]
    source = "prepared" if first else "x"
    cast = [helper.make_node("Cast", [source], ["floats"], to=TensorProto.FLOAT)] if dtype is np.uint8 else []
    nodes = [
        *first,
        *cast,
        helper.make_node("ReduceMean", ["floats" if cast else source], ["means"], axes=axes, keepdims=0),
        helper.make_node("Softmax", ["means"], ["y"], axis=1),
    ]
    weights = {"shift": np.array([1.0], np.float32)} if first else {}
    return write(path, nodes, shape, {"y": (shape[0], 3)}, weights, dtype, metadata=metadata)


def table(path: Path, tables: dict[str, np.ndarray], size: int = 64, **options: Any) -> Path:
    """Write a detector with the same outputs for every image: one table ``(rows, columns)`` per output."""
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        helper.make_node("Reshape", ["nothing", "column"], ["zeros"]),
    ]
    weights = {"zero": np.zeros(1, np.float32), "column": np.array([-1, 1, 1], np.int64)}
    for name, values in tables.items():
        nodes.append(helper.make_node("Add", ["zeros", f"table_{name}"], [name]))
        weights[f"table_{name}"] = values[None].astype(np.float32)
    outputs = {name: ("N", *values.shape) for name, values in tables.items()}
    return write(path, nodes, ("N", 3, size, size), outputs, weights, **options)
