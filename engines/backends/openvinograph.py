"""Rewrite a model in OpenVINO's form before it is compiled, so that OpenVINO computes it faster and more accurately.

OpenVINO's nodes have no type hints, so that they are ``Any`` here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import openvino

_LEVELS = 256
"""Number of values of an int8 tensor."""
_ZERO_POINT = 128.0
"""Zero point with which uint8 has the range of int8."""
_SHAPE_OPERATORS = frozenset({"Reshape", "Squeeze", "Transpose", "Unsqueeze"})
_TRANSPOSED_CONVOLUTIONS = frozenset({"ConvolutionBackpropData", "GroupConvolutionBackpropData"})


def rewrite(model: openvino.Model) -> None:
    """Rewrite the parts of a model that OpenVINO computes slowly or inaccurately.

    A float model keeps its outputs. The outputs of an int8 model come closer to those of ONNX Runtime.
    """
    for node in model.get_ordered_ops():
        if node.get_type_name() == "FakeQuantize":
            _store_unsigned(node)
    for node in model.get_ordered_ops():
        if node.get_type_name() == "Convolution":
            _fold_zero_point(node)
        elif node.get_type_name() == "Transpose":
            _transpose_before_concatenation(node)
    model.validate_nodes_and_infer_types()


def _store_unsigned(quantise: Any) -> None:
    """Store signed 8-bit activations as uint8 with a zero point of 128: other integers for the same numbers.

    OpenVINO would convert int8 to uint8 itself, because processors multiply uint8 by int8. But if such activations
    are concatenated, OpenVINO then stores all of them with the widest of their ranges, and loses more than three of
    eight bits of some (decision 11).
    """
    from openvino import opset13 as ops

    signed = _readers(quantise)
    if [_constant(quantise.input_value(index)) for index in (3, 4)] != [-_ZERO_POINT, _ZERO_POINT - 1]:
        return
    if quantise.get_attributes()["levels"] != _LEVELS or {_type_of(node) for node in signed} != {"i8"}:
        return
    inputs = [quantise.input_value(index) for index in range(3)]
    subtracts = [subtract for node in signed for back in _readers(node) for subtract in _readers(back)]
    if not all(
        node.get_type_name() == "Subtract" and _constant(node.input_value(1)) == 0.0 and _permits_zero_point(node)
        for node in subtracts
    ):
        return
    low, high = _new_constant(0.0, inputs[0]), _new_constant(_LEVELS - 1, inputs[0])
    stored = ops.convert(ops.fake_quantize(*inputs, low, high, _LEVELS), "u8")
    for subtract in subtracts:
        shifted = ops.convert(stored, _type_of(subtract))
        _replace(subtract, ops.subtract(shifted, _new_constant(_ZERO_POINT, subtract.output(0))))


def _permits_zero_point(subtract: Any) -> bool:
    """Return whether OpenVINO computes the layers behind a dequantisation in int8 even if it has a zero point.

    OpenVINO would compute transposed convolutions, and products of two activations, in float.
    """
    following = [layer for multiply in _readers(subtract) for layer in _readers(multiply)]
    while following:
        layer = following.pop()
        kind = layer.get_type_name()
        if kind in _SHAPE_OPERATORS:
            following += _readers(layer)
        elif kind in _TRANSPOSED_CONVOLUTIONS or (kind == "MatMul" and _int8_weights(layer.input_value(1)) is None):
            return False
    return True


def _fold_zero_point(convolution: Any) -> None:
    """Subtract the zero point of an int8 convolution's input from its results, where OpenVINO adds it to the bias.

    A convolution is linear: the zero point adds a constant to each output channel, unless padding replaces it at the
    edges. OpenVINO would add the constant to each sum of products in a step of its own.
    """
    from openvino import opset13 as ops

    multiply = convolution.input_value(0).get_node()
    if multiply.get_type_name() != "Multiply" or not _is_unpadded(convolution):
        return
    if set(convolution.get_attributes()["strides"]) != {1}:
        return  # OpenVINO would replace the strides of a kernel of 1 by a pooling in float
    subtract = multiply.input_value(0).get_node()
    if subtract.get_type_name() != "Subtract":
        return
    stored = subtract.input_value(0).get_node()
    if stored.get_type_name() != "Convert" or _type_of(stored.input_value(0)) != "u8":
        return
    scale, zero_point = _constant(multiply.input_value(1)), _constant(subtract.input_value(1))
    weights = _int8_weights(convolution.input_value(1))
    if scale is None or zero_point is None or weights is None:
        return
    sums = weights.sum(axis=tuple(range(1, weights.ndim)), keepdims=True).swapaxes(0, 1)
    shifted = ops.multiply(stored, multiply.input_value(1))
    convolution.input(0).replace_source_output(shifted.output(0))
    readers = convolution.output(0).get_target_inputs()
    result = ops.subtract(convolution, _new_constant(sums * scale * zero_point, convolution.output(0)))
    for reader in readers:
        reader.replace_source_output(result.output(0))


def _transpose_before_concatenation(transpose: Any) -> None:
    """Transpose feature maps ``(N, C, H, W)`` before they are flattened and concatenated to ``(N, C, boxes)``.

    OpenVINO keeps feature maps in the order ``(N, H, W, C)`` in memory, so that their transposition costs nothing.
    Detectors such as YOLOX end with a transposition to ``(N, boxes, C)``.
    """
    from openvino import opset13 as ops

    concat = transpose.input_value(0).get_node()
    order = transpose.input_value(1).get_node()
    if order.get_type_name() != "Constant" or order.get_data().tolist() != [0, 2, 1]:
        return
    if concat.get_type_name() != "Concat" or concat.get_attributes()["axis"] not in (2, -1):
        return
    flat = [value.get_node() for value in concat.input_values()]
    if not all(_flattens_maps(node) for node in flat):
        return
    parts = [
        ops.reshape(
            ops.transpose(node.input_value(0), np.array([0, 2, 3, 1])),
            np.array([0, -1, node.input_value(0).get_partial_shape()[1].get_length()]),
            special_zero=True,
        )
        for node in flat
    ]
    _replace(transpose, ops.concat(parts, axis=1))


def _flattens_maps(node: Any) -> bool:
    """Return whether a node changes the shape from ``(N, C, H, W)`` to ``(N, C, H * W)``, with C, H and W fixed."""
    if node.get_type_name() != "Reshape":
        return False
    before, after = node.input_value(0).get_partial_shape(), node.get_output_partial_shape(0)
    if before.rank.is_dynamic or after.rank.is_dynamic or (len(before), len(after)) != (4, 3):
        return False
    sizes = [*list(before)[1:], *list(after)[1:]]
    if any(size.is_dynamic for size in sizes):
        return False
    channels, height, width, same, area = (size.get_length() for size in sizes)
    return bool((channels, height * width) == (same, area))


def _is_unpadded(convolution: Any) -> bool:
    settings = convolution.get_attributes()
    pads = settings["pads_begin"] + settings["pads_end"]
    return settings["auto_pad"] == "valid" or (settings["auto_pad"] == "explicit" and not any(pads))


def _int8_weights(value: Any) -> Any:
    """Return the values of weights that are stored in int8, as float64, or None for other weights."""
    stored = value.get_node()
    while stored.get_input_size():
        stored = stored.input_value(0).get_node()
    is_int8 = stored.get_type_name() == "Constant" and _type_of(stored) == "i8"
    return _evaluated(value).astype(np.float64) if is_int8 else None


def _constant(value: Any) -> float | None:
    """Return the number that a constant scalar has, or None for other tensors."""
    constant = value.get_node()
    while constant.get_type_name() == "Convert":
        constant = constant.input_value(0).get_node()
    if constant.get_type_name() != "Constant" or constant.get_data().size != 1:
        return None
    return float(constant.get_data().reshape(()))


def _evaluated(value: Any) -> Any:
    """Return the array that a node computes from constants only."""
    import openvino

    node = value.get_node()
    if node.get_type_name() == "Constant":
        return node.get_data()
    inputs = [openvino.Tensor(np.array(_evaluated(each), order="C")) for each in node.input_values()]
    result = openvino.Tensor(value.get_element_type(), value.get_shape())
    node.evaluate([result], inputs)
    return np.array(result.data)


def _type_of(value: Any) -> str:
    """Return OpenVINO's name of the element type of a node's output, such as u8 or f32."""
    output = value.output(0) if hasattr(value, "output") else value
    name: str = output.get_element_type().get_type_name()
    return name


def _new_constant(values: Any, output: Any) -> Any:
    """Return a node with constant values, of the element type of an output."""
    from openvino import opset13 as ops

    return ops.constant(np.asarray(values, np.float32), output.get_element_type())


def _readers(node: Any) -> list[Any]:
    return [reader.get_node() for reader in node.output(0).get_target_inputs()]


def _replace(node: Any, other: Any) -> None:
    """Let all readers of a node read another node, which also takes over the name of the output."""
    names = node.output(0).get_names()
    for reader in node.output(0).get_target_inputs():
        reader.replace_source_output(other.output(0))
    other.output(0).set_names(names)
