"""Edit the graph of an adopted model: uint8 pixels as the input, float32 outputs, and a free batch size. Pure."""

from __future__ import annotations

import copy
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, helper, numpy_helper

from engines.exceptions import AdoptFailed

INPUT = "pixels"
_BATCH = "batch"
_TYPES: dict[int, type[np.generic]] = {
    TensorProto.FLOAT: np.float32,
    TensorProto.FLOAT16: np.float16,
    TensorProto.DOUBLE: np.float64,
    TensorProto.UINT8: np.uint8,
}
_RESHAPES = frozenset({"Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
"""Operators that change the type, order or shape of a tensor, but not its values."""
_LINEAR = frozenset({"Add", "Conv", "Gemm", "MatMul", "Sub"})
"""Operators without an activation. If a classifier ends with one of them, its outputs are logits."""

Triple = tuple[float, float, float]


class ForeignInput(NamedTuple):
    """The input of a foreign model, ``(N, 3, height, width)``.

    ``batch`` is the fixed batch size, or 0 if any batch size is accepted.
    """

    name: str
    batch: int
    height: int
    width: int
    element: int

    @property
    def dtype(self) -> type[np.generic]:
        """NumPy type of the input."""
        return _TYPES[self.element]


def input_of(model: Any) -> ForeignInput:
    """Return the input of a foreign model. Raise AdoptFailed for an input that pixels cannot be converted to."""
    weights = {initializer.name for initializer in model.graph.initializer}
    inputs = [given for given in model.graph.input if given.name not in weights]
    shape = [d.dim_value for d in inputs[0].type.tensor_type.shape.dim] if len(inputs) == 1 else []
    if len(shape) != 4 or shape[1] != 3 or not all(shape[2:]):
        raise AdoptFailed(
            f"model inputs {[i.name for i in inputs]} have shape {shape}: expected one of (N, 3, height, width)"
        )
    element = inputs[0].type.tensor_type.elem_type
    if element not in _TYPES:
        raise AdoptFailed(
            f"model input {inputs[0].name} is {TensorProto.DataType.Name(element)}: expected FLOAT, FLOAT16, DOUBLE "
            "or UINT8. Export the model with a float input"
        )
    return ForeignInput(inputs[0].name, shape[0], shape[2], shape[3], element)


def with_float_outputs(original: Any, output: str, scores: bool) -> Any:
    """Return a model whose outputs are float32.

    With ``output``, the model has only the output of that name. With ``scores``, a sigmoid is appended to outputs
    that are logits. Raise AdoptFailed for an unknown output.
    """
    model = copy.deepcopy(original)
    graph = model.graph
    if output:
        chosen = [value for value in graph.output if value.name == output]
        if not chosen:
            names = ", ".join(value.name for value in graph.output)
            raise AdoptFailed(f"model output {output} does not exist: expected one of {names}")
        del graph.output[:]
        graph.output.extend(chosen)
    for value in graph.output:
        if scores and _is_linear(graph, value.name):
            _append(graph, value, "Sigmoid")
        if value.type.tensor_type.elem_type != TensorProto.FLOAT:
            _append(graph, value, "Cast", to=TensorProto.FLOAT)
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    return model


def with_pixels(original: Any, given: ForeignInput, mean: Triple, scale: Triple) -> Any:
    """Return the model with a uint8 input ``(N, height, width, 3)``.

    Added nodes compute the original input from these pixels.
    """
    model = copy.deepcopy(original)
    graph = model.graph
    constants = {"sightline_mean": mean, "sightline_scale": scale}
    nodes = [helper.make_node("Cast", [INPUT], ["sightline_float"], to=TensorProto.FLOAT)]
    last = "sightline_float"
    for name, kind in (("sightline_mean", "Sub"), ("sightline_scale", "Mul")):
        if constants[name] not in ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)):
            graph.initializer.append(numpy_helper.from_array(np.array(constants[name], np.float32), name))
            nodes.append(helper.make_node(kind, [last, name], [f"{name}_out"]))
            last = f"{name}_out"
    if given.element != TensorProto.FLOAT:
        nodes.append(helper.make_node("Cast", [last], ["sightline_cast"], to=given.element))
        last = "sightline_cast"
    nodes.append(helper.make_node("Transpose", [last], [given.name], perm=[0, 3, 1, 2]))
    kept = list(graph.node)
    del graph.node[:], graph.input[:], graph.value_info[:]
    graph.node.extend([*nodes, *kept])
    shape = [given.batch or 1, given.height, given.width, 3]
    graph.input.append(helper.make_tensor_value_info(INPUT, TensorProto.UINT8, shape))
    return model


def with_free_batch(model: Any) -> Any:
    """Return the model with a free batch size in its declared shapes and in its Reshape nodes."""
    freed = copy.deepcopy(model)
    for value in (*freed.graph.input, *freed.graph.output):
        if value.type.tensor_type.shape.dim:
            value.type.tensor_type.shape.dim[0].dim_param = _BATCH
    shapes = {node.input[1] for node in freed.graph.node if node.op_type == "Reshape"}
    for constant in freed.graph.initializer:
        values = numpy_helper.to_array(constant)
        if constant.name in shapes and values.ndim == 1 and values.size > 1 and values[0] == 1:
            kept = values.copy()
            kept[0] = 0  # ONNX Reshape: 0 copies the dimension of the input
            constant.CopyFrom(numpy_helper.from_array(kept, constant.name))
    return freed


def planes(pixels: npt.NDArray[np.uint8], given: ForeignInput, mean: Triple, scale: Triple) -> npt.NDArray[Any]:
    """Return pixels converted to the input of the original model."""
    floats = ((pixels.astype(np.float32) - mean) * scale).astype(np.float32)
    return np.ascontiguousarray(floats.transpose(0, 3, 1, 2).astype(given.dtype))


def _is_linear(graph: Any, name: str) -> bool:
    makers = {output: node for node in graph.node for output in node.output}
    node: Any = makers.get(name)
    while node is not None and node.op_type in _RESHAPES:
        node = makers.get(node.input[0])
    return node is not None and node.op_type in _LINEAR


def _append(graph: Any, value: Any, operator: Literal["Cast", "Sigmoid"], **attributes: int) -> None:
    """Put an operator between an output and the node that computes it. The output keeps its name."""
    inner = f"sightline_{operator.lower()}_{value.name}"
    for node in graph.node:
        node.input[:] = [inner if name == value.name else name for name in node.input]
        node.output[:] = [inner if name == value.name else name for name in node.output]
    graph.node.append(helper.make_node(operator, [inner], [value.name], **attributes))
