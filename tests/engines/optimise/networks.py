"""Small networks with the input and outputs of stored models, for tests of optimisation."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

SIZE = 16
CLASSES = 4
_CHANNELS = 8


class Graph:
    """A graph that grows node by node. Weights are random, with unit gain."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self._random = np.random.default_rng(1)

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add a node, and return the name of its output."""
        name = f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        return name

    def constant(self, values: np.ndarray) -> str:
        """Add a constant, and return its name."""
        name = f"constant_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def conv(self, source: str, before: int, after: int, kernel: int = 3, stride: int = 1, group: int = 1) -> str:
        """Add a convolution with a bias."""
        shape = (after, before // group, kernel, kernel)
        values = self._random.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
        bias = self.constant(self._random.standard_normal(after).astype(np.float32) * np.float32(0.1))
        weights = self.constant(values.astype(np.float32))
        return self.add("Conv", source, weights, bias, pads=[kernel // 2] * 4, strides=[stride] * 2, group=group)

    def pixels(self) -> str:
        """Add the nodes that adoption puts in front of a model: uint8 pixels to normalised planes."""
        floats = self.add("Cast", "pixels", to=TensorProto.FLOAT)
        scaled = self.add("Mul", floats, self.constant(np.full(3, 1 / 64, np.float32)))
        return self.add("Transpose", scaled, perm=[0, 3, 1, 2])

    def model(self, outputs: dict[str, list[int | str]], opset: int = 17) -> Any:
        """Return the model with outputs of these shapes."""
        given = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", SIZE, SIZE, 3])
        declared = [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in outputs.items()]
        graph = helper.make_graph(self.nodes, "small", [given], declared, self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
        onnx.checker.check_model(model)
        return model


def residual_classifier() -> Any:
    """Return a classifier with a residual block of two convolutions, a downsampling block, and a dense layer."""
    graph = Graph()
    top = graph.add("Relu", graph.conv(graph.pixels(), 3, _CHANNELS))
    inner = graph.add("Relu", graph.conv(top, _CHANNELS, _CHANNELS))
    top = graph.add("Relu", graph.add("Add", graph.conv(inner, _CHANNELS, _CHANNELS), top))
    inner = graph.add("Relu", graph.conv(top, _CHANNELS, 2 * _CHANNELS, stride=2))
    skip = graph.conv(top, _CHANNELS, 2 * _CHANNELS, kernel=1, stride=2)
    top = graph.add("Relu", graph.add("Add", graph.conv(inner, 2 * _CHANNELS, 2 * _CHANNELS), skip))
    flat = graph.add("Flatten", graph.add("GlobalAveragePool", top))
    dense = graph.constant(np.random.default_rng(2).standard_normal((CLASSES, 2 * _CHANNELS)).astype(np.float32))
    bias = graph.constant(np.zeros(CLASSES, np.float32))
    scores = graph.add("Softmax", graph.add("Gemm", flat, dense, bias, transB=1), axis=1)
    return graph.model({scores: ["n", CLASSES]})


def pictures(count: int, seed: int = 0) -> np.ndarray:
    """Return pictures of smooth random colours, ``(count, SIZE, SIZE, 3)`` uint8."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (count, 4, 4, 3), np.uint8)
    return coarse.repeat(SIZE // 4, axis=1).repeat(SIZE // 4, axis=2)


def run(model: Any, images: np.ndarray) -> list[np.ndarray]:
    """Return the outputs of a model."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, {"pixels": images}))
