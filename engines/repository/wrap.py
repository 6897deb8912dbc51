"""Edit the graph of an adopted model: uint8 pixels as the input, float32 outputs, and a free batch size. Pure."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, helper, numpy_helper

from engines.exceptions import AdoptFailed
from ingest.site.pipeline import MAX_PIXEL_BYTES

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
"""Operators that apply no activation function. A classifier whose last operator is in this set returns logits."""

Triple = tuple[float, float, float]
NO_MEAN: Triple = (0.0, 0.0, 0.0)
NO_SCALE: Triple = (1.0, 1.0, 1.0)


Layout = Literal["nchw", "nhwc"]
"""Order of the axes of an input: ``(N, 3, height, width)`` or ``(N, height, width, 3)``."""


class ForeignInput(NamedTuple):
    """The input of a foreign model.

    ``batch`` is the fixed batch size, or 0 if any batch size is accepted.
    """

    name: str
    batch: int
    height: int
    width: int
    element: int
    layout: Layout = "nchw"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one image."""
        size = (self.height, self.width)
        return (*size, 3) if self.layout == "nhwc" else (3, *size)

    @property
    def dtype(self) -> type[np.generic]:
        """NumPy type of the input."""
        return _TYPES[self.element]


def inputs_of(model: Any) -> list[Any]:
    """Return the inputs of a model without its weights, which old exporters declare as inputs too."""
    weights = {initializer.name for initializer in model.graph.initializer}
    return [given for given in model.graph.input if given.name not in weights]


def graphs_of(model: Any) -> Iterator[Any]:
    """Yield the main graph of a model, and the subgraphs in its nodes, for example in If and Loop."""
    waiting = [model.graph]
    while waiting:
        graph = waiting.pop()
        yield graph
        for node in graph.node:
            waiting.extend(subgraphs_of(node))


def subgraphs_of(node: Any) -> Iterator[Any]:
    """Yield the graphs directly inside of a node, for example the branches of If."""
    for attribute in node.attribute:
        yield from attribute.graphs
        if attribute.HasField("g"):
            yield attribute.g


def input_of(model: Any, size: tuple[int, int] | None = None) -> ForeignInput:
    """Return the input of a foreign model. ``size`` is the (width, height) in px for a model that accepts any size.

    Raise AdoptFailed if pixels cannot be converted to the model's input.
    """
    inputs = inputs_of(model)
    shape = [d.dim_value for d in inputs[0].type.tensor_type.shape.dim] if len(inputs) == 1 else []
    layout: Layout = "nhwc" if len(shape) == 4 and shape[3] == 3 and shape[1] != 3 else "nchw"
    if len(shape) != 4 or shape[3 if layout == "nhwc" else 1] != 3:
        raise AdoptFailed(
            f"model inputs {[i.name for i in inputs]} have shape {shape}: expected a single input (N, 3, height, "
            "width) or (N, height, width, 3). Export the model with one input of colour pictures"
        )
    height, width = shape[1:3] if layout == "nhwc" else shape[2:]
    if size and ((width and width != size[0]) or (height and height != size[1])):
        raise AdoptFailed(
            f"--size = {size[0]}x{size[1]}: expected {width}x{height}, the fixed input size of the model file"
        )
    height, width = height or (size or (0, 0))[1], width or (size or (0, 0))[0]
    if min(width, height) <= 0 or width * height * 3 > MAX_PIXEL_BYTES:
        raise AdoptFailed(
            f"model input {inputs[0].name} is {width or 'any'} px wide and {height or 'any'} px high: expected at "
            f"most {MAX_PIXEL_BYTES // 3} px, which fit into a batch. Pass --size WIDTHxHEIGHT if the model accepts "
            "any size"
        )
    element = inputs[0].type.tensor_type.elem_type
    if element not in _TYPES:
        raise AdoptFailed(
            f"model input {inputs[0].name} is {TensorProto.DataType.Name(element)}: expected FLOAT, FLOAT16, DOUBLE "
            "or UINT8. Export the model with a float input"
        )
    return ForeignInput(inputs[0].name, shape[0], height, width, element, layout)


def with_float_outputs(original: Any, output: str, scores: bool) -> Any:
    """Return a model whose outputs are float32.

    If ``output`` is not empty, keep only the outputs that ``output`` names, separated by commas. If ``scores`` is
    true, append a sigmoid to each output that consists of logits. Raise AdoptFailed for an unknown output.
    """
    model = copy.deepcopy(original)
    graph = model.graph
    if output:
        known = {value.name: value for value in graph.output}
        wanted = [output] if output in known else output.split(",")
        if missing := [name for name in wanted if name not in known]:
            raise AdoptFailed(f"model output {missing[0]} does not exist: expected one of {', '.join(known)}")
        chosen = [copy.deepcopy(known[name]) for name in wanted]
        del graph.output[:]
        graph.output.extend(chosen)
    for value in graph.output:
        if scores and _is_linear(graph, value.name):
            _append(model, value, "Sigmoid")
        if value.type.tensor_type.elem_type != TensorProto.FLOAT:
            _append(model, value, "Cast", to=TensorProto.FLOAT)
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    return model


def with_pixels(original: Any, given: ForeignInput, mean: Triple, scale: Triple) -> Any:
    """Return the model with a uint8 input ``(N, height, width, 3)``, which is its only input.

    Added graph nodes compute the original input from the uint8 pixels. The tensors of added nodes get names that the
    model does not use.
    """
    model = copy.deepcopy(original)
    graph = model.graph
    used = tensor_names(model)
    pixels, last = unused_name("pixels", used), unused_name("sightline_float", used)
    nodes = [helper.make_node("Cast", [pixels], [last], to=TensorProto.FLOAT)]
    for name, kind, values, neutral in (
        ("sightline_mean", "Sub", mean, NO_MEAN),
        ("sightline_scale", "Mul", scale, NO_SCALE),
    ):
        if values != neutral:
            constant, result = unused_name(name, used), unused_name(f"{name}_out", used)
            graph.initializer.append(numpy_helper.from_array(np.array(values, np.float32), constant))
            nodes.append(helper.make_node(kind, [last, constant], [result]))
            last = result
    if given.element != TensorProto.FLOAT:
        result = unused_name("sightline_cast", used)
        nodes.append(helper.make_node("Cast", [last], [result], to=given.element))
        last = result
    if given.layout == "nhwc":
        nodes.append(helper.make_node("Identity", [last], [given.name]))
    else:
        nodes.append(helper.make_node("Transpose", [last], [given.name], perm=[0, 3, 1, 2]))
    kept = list(graph.node)
    del graph.node[:], graph.input[:], graph.value_info[:]
    graph.node.extend([*nodes, *kept])
    shape = [given.batch or 1, given.height, given.width, 3]
    graph.input.append(helper.make_tensor_value_info(pixels, TensorProto.UINT8, shape))
    return model


def with_free_batch(model: Any, batch: int = 1) -> Any:
    """Return the model with a free batch size in its declared shapes and in its Reshape nodes.

    ``batch`` is the batch size that the model was exported for.
    """
    freed = copy.deepcopy(model)
    for value in (*freed.graph.input, *freed.graph.output):
        if value.type.tensor_type.shape.dim:
            value.type.tensor_type.shape.dim[0].dim_param = _BATCH
    shapes = {node.input[1] for node in freed.graph.node if node.op_type == "Reshape"}
    computed = (
        attribute.t
        for node in freed.graph.node
        if node.op_type == "Constant" and node.output[0] in shapes
        for attribute in node.attribute
        if attribute.name == "value"
    )
    named = (constant for constant in freed.graph.initializer if constant.name in shapes)
    for constant in (*named, *computed):
        values = numpy_helper.to_array(constant)
        if values.ndim == 1 and values.size > 1 and values[0] == batch:
            kept = values.copy()
            kept[0] = 0  # ONNX Reshape: 0 copies the dimension of the input
            constant.CopyFrom(numpy_helper.from_array(kept, constant.name))
    return freed


def planes(pixels: npt.NDArray[np.uint8], given: ForeignInput, mean: Triple, scale: Triple) -> npt.NDArray[Any]:
    """Convert uint8 pixels to the input of the original model."""
    floats = ((pixels.astype(np.float32) - mean) * scale).astype(np.float32)
    ordered = floats if given.layout == "nhwc" else floats.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(ordered.astype(given.dtype))


def _is_linear(graph: Any, name: str) -> bool:
    makers = {output: node for node in graph.node for output in node.output}
    node: Any = makers.get(name)
    while node is not None and node.op_type in _RESHAPES:
        node = makers.get(node.input[0])
    return node is not None and node.op_type in _LINEAR


def tensor_names(model: Any) -> set[str]:
    """Return the names of all tensors of a model.

    A subgraph in a node shares the names of the graph around the node.
    """
    names: set[str] = set()
    for graph in graphs_of(model):
        names.update(value.name for value in (*graph.input, *graph.output, *graph.initializer))
        names.update(weight.values.name for weight in graph.sparse_initializer)
        names.update(name for node in graph.node for name in (*node.input, *node.output))
    return names


def unused_name(name: str, used: set[str]) -> str:
    """Append underscores to a name until the name differs from all used names."""
    while name in used:
        name += "_"
    return name


def _append(model: Any, value: Any, operator: Literal["Cast", "Sigmoid"], **attributes: int) -> None:
    """Put an operator between an output and the node that computes it. The output keeps its name."""
    graph = model.graph
    inner = unused_name(f"sightline_{operator.lower()}_{value.name}", tensor_names(model))
    for node in graph.node:
        node.input[:] = [inner if name == value.name else name for name in node.input]
        node.output[:] = [inner if name == value.name else name for name in node.output]
    graph.node.append(helper.make_node(operator, [inner], [value.name], **attributes))
