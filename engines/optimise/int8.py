"""Quantise a model to int8 with ONNX Runtime's quantiser, in the form of ONNX Runtime or of TensorRT.

``u8s8`` has unsigned activations, with which ONNX Runtime is fast on CPUs. ``s8s8`` has signed activations with a
zero point of 0, the only form that TensorRT reads. Weights are signed, with a scale for each output channel.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnx.version_converter
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from engines.engine import Images
from engines.exceptions import OptimiseFailed
from engines.optimise.layers import inner_part
from engines.repository.inspection import opset_of

Form = Literal["u8s8", "s8s8"]
FORMS: tuple[Form, ...] = ("u8s8", "s8s8")
_MIN_OPSET = 13
"""Oldest operator set version (opset) in which quantised weights have a scale for each output channel."""
_TENSORRT_OPERATORS = ["Conv", "ConvTranspose", "Gemm", "MatMul", "Add"]
"""Operators whose inputs are quantised for TensorRT (NVIDIA, "Explicit quantization"). TensorRT itself chooses the
precision of the operators that are not in this list."""
_CPU_OPERATORS = [
    *_TENSORRT_OPERATORS,
    *("AveragePool", "Clip", "Concat", "Flatten", "GlobalAveragePool", "LeakyRelu", "MaxPool", "Mul", "Pad", "Relu"),
    *("Reshape", "Resize", "Sigmoid", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"),
]
"""Operators that ONNX Runtime computes in int8 on a CPU. A float operator between two int8 operators costs two
conversions."""
_TENSORRT_OPTIONS = {
    "ActivationSymmetric": True,
    "WeightSymmetric": True,
    "QuantizeBias": False,  # TensorRT does not read the INT32 of a quantised bias
    "DedicatedQDQPair": True,
    "OpTypesToExcludeOutputQuantization": _TENSORRT_OPERATORS,
}


def quantised(
    model: Any,
    form: Form,
    pictures: Iterable[Images],
    *,
    reduce_range: bool = False,
    on_picture: Callable[[], None] = lambda: None,
) -> Any:
    """Return a model in int8. The int8 model takes uint8 pixels, and its outputs are float32.

    ``pictures`` are batches of one picture, ``(1, height, width, 3)`` uint8, from whose activations the quantisation
    ranges are measured. ``reduce_range`` stores weights in seven bits, because processors without VNNI overflow when
    they add two products of ``u8s8``. The last layers with weights stay in float32. Raise OptimiseFailed.
    """
    with tempfile.TemporaryDirectory() as folder, _quiet():
        prepared, result = Path(folder) / "prepared.onnx", Path(folder) / "int8.onnx"
        try:
            quant_pre_process(_as_written(model, Path(folder)), str(prepared), skip_symbolic_shape=True)
            graph = onnx.load(str(prepared))
            inner = _named_inner_nodes(graph)
            onnx.save(graph, str(prepared))
            if not inner:
                raise OptimiseFailed(
                    "the model has no layer to quantise: expected a convolution followed by another layer with "
                    "weights"
                )
            quantize_static(
                str(prepared),
                str(result),
                _Reader(model.graph.input[0].name, pictures, on_picture),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=_TENSORRT_OPERATORS if form == "s8s8" else _CPU_OPERATORS,
                per_channel=True,
                reduce_range=reduce_range,
                activation_type=QuantType.QInt8 if form == "s8s8" else QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_quantize=inner,
                extra_options=dict(_TENSORRT_OPTIONS) if form == "s8s8" else {},
            )
        except OptimiseFailed:
            raise
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            raise OptimiseFailed(f"quantisation to {form} failed: {error}") from None
        found = onnx.load(str(result))
    if form == "s8s8":
        _unbroken_sums(found.graph)
    return found


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, name: str, pictures: Iterable[Images], on_picture: Callable[[], None]) -> None:
        self._name, self._left, self._on_picture = name, iter(pictures), on_picture

    def get_next(self) -> dict[str, Images] | None:
        """Return the next picture, or None at the end."""
        for picture in self._left:
            self._on_picture()
            return {self._name: np.ascontiguousarray(picture)}
        return None


def _as_written(model: Any, folder: Path) -> str:
    """Write a model to a file in ``folder`` with at least the opset ``_MIN_OPSET``, and return the file's path."""
    file = folder / "model.onnx"
    if opset_of(model) < _MIN_OPSET:
        model = onnx.version_converter.convert_version(model, _MIN_OPSET)
    onnx.save(model, str(file))
    return str(file)


def _named_inner_nodes(model: Any) -> list[str]:
    """Give every node a name of its own. Return the names of the nodes to quantise.

    The nodes to quantise lie between the first and the last layers with weights, including the first layers and
    excluding the last layers. Depthwise convolutions are not quantised: they have few multiplications to save, and
    their channels have very different ranges, so that YOLOX-nano would lose most of its accuracy (decision 16).
    """
    for index, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}_{index}"
    part = inner_part(model.graph)
    weights = {weight.name: weight.dims for weight in model.graph.initializer}
    return [
        node.name
        for index, node in enumerate(model.graph.node)
        if index in part.inner - part.last and not _is_depthwise(node, weights)
    ]


def _is_depthwise(node: Any, weights: Mapping[str, Sequence[int]]) -> bool:
    """Return whether a node is a convolution of several channels, each with filters of its own."""
    groups = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
    return node.op_type == "Conv" and groups > 1 and weights.get(node.input[1], (0, 0))[1] == 1


def _unbroken_sums(graph: Any) -> None:
    """Let each sum read one of its inputs in float, directly from the convolution that computes this input.

    TensorRT computes a convolution and a following sum in one kernel, if only the other input of the sum is
    quantised.
    """
    makers = {name: node for node in graph.node for name in node.output}
    readers: dict[str, int] = {}
    for node in graph.node:
        for name in node.input:
            readers[name] = readers.get(name, 0) + 1
    dropped: set[str] = set()
    for node in graph.node:
        if node.op_type != "Add":
            continue
        for index, name in enumerate(node.input):
            pair = _pair(name, makers)
            if pair and pair[0].op_type in ("Conv", "ConvTranspose") and readers[name] == 1:
                node.input[index] = pair[0].output[0]
                dropped.update((name, pair[1].output[0]))
                break
    kept = [node for node in graph.node if not dropped.intersection(node.output)]
    del graph.node[:]
    graph.node.extend(kept)


def _pair(name: str, makers: dict[str, Any]) -> tuple[Any, Any] | None:
    """For a pair of quantise and dequantise nodes, return the node that computes the pair's input, and the quantise
    node."""
    back = makers.get(name)
    there = makers.get(back.input[0]) if back is not None and back.op_type == "DequantizeLinear" else None
    maker = makers.get(there.input[0]) if there is not None and there.op_type == "QuantizeLinear" else None
    return (maker, there) if maker is not None else None


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the hints that ONNX Runtime's quantiser logs through the root logger."""
    logger = logging.getLogger()
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
