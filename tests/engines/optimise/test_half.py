"""Tests of the conversion to half precision: types, outputs, and the operators that stay in float32."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from engines.exceptions import OptimiseFailed
from engines.optimise.half import halved
from engines.optimise.layers import inner_part
from tests.engines.optimise.networks import Graph, pictures, residual_classifier, run


def types(model: Any) -> dict[str, int]:
    """Return the element type of every tensor."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    values = (*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output)
    return {value.name: value.type.tensor_type.elem_type for value in values}


def require_equal_outputs(model: Any, atol: float = 0.02) -> None:
    """Fail unless the outputs in half precision are float32, and about equal to the original outputs."""
    images = pictures(8)
    before = run(model, images)
    for wanted, found in zip(before, run(halved(model), images), strict=True):
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, wanted, atol=atol)


def test_layers_with_weights_become_float16_while_input_and_outputs_keep_their_types() -> None:
    model = halved(residual_classifier())
    found = types(model)
    assert found["pixels"] == TensorProto.UINT8
    assert [found[output.name] for output in model.graph.output] == [TensorProto.FLOAT]
    layers = [
        node for node in model.graph.node if node.op_type in ("Conv", "Relu", "Add", "Gemm", "GlobalAveragePool")
    ]
    assert {found[node.output[0]] for node in layers} == {TensorProto.FLOAT16}
    ends = [node for node in model.graph.node if node.op_type in ("Mul", "Transpose", "Softmax")]
    assert {found[node.output[0]] for node in ends} == {TensorProto.FLOAT}
    weights = {w.data_type for w in model.graph.initializer if len(w.dims) == 4}
    assert weights == {TensorProto.FLOAT16}
    assert model.ByteSize() < 0.7 * residual_classifier().ByteSize()


def test_outputs_of_a_half_precision_model_are_close_to_those_of_the_original() -> None:
    require_equal_outputs(residual_classifier(), atol=5e-3)


def test_a_model_output_that_comes_from_a_layer_with_weights_keeps_its_name_and_type() -> None:
    graph = Graph()
    middle = graph.conv(graph.pixels(), 3, 4)
    last = graph.conv(graph.add("Relu", middle), 4, 2)
    model = graph.model({middle: ["n", 4, 16, 16], last: ["n", 2, 16, 16]})
    assert [output.name for output in halved(model).graph.output] == [middle, last]
    require_equal_outputs(model)


def test_inputs_that_an_onnx_operator_defines_as_float32_stay_float32() -> None:
    graph = Graph()
    first = graph.conv(graph.pixels(), 3, 4)
    scales = graph.constant(np.array([1, 1, 2, 2], np.float32))
    larger = graph.add("Resize", first, "", scales, mode="nearest")
    last = graph.conv(larger, 4, 2)
    model = graph.model({last: ["n", 2, 32, 32]})
    require_equal_outputs(model)


def test_a_subgraph_inside_an_onnx_node_reads_float32() -> None:
    graph = Graph()
    first = graph.conv(graph.pixels(), 3, 4)
    branches = {}
    for name, operator in (("then_branch", "Neg"), ("else_branch", "Abs")):
        result = helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, None)
        node = helper.make_node(operator, [first], [result.name])
        branches[name] = helper.make_graph([node], name, [], [result])
    chosen = graph.add("If", graph.constant(np.array(True)), **branches)
    last = graph.conv(chosen, 4, 2)
    model = graph.model({last: ["n", 2, 16, 16]})
    require_equal_outputs(model)


def test_an_onnx_node_with_subgraphs_converts_back_only_the_tensors_that_it_reads() -> None:
    graph = Graph()
    read = graph.conv(graph.pixels(), 3, 4)
    other = graph.add("Relu", read)
    inside = helper.make_tensor_value_info("inside", TensorProto.FLOAT, None)
    branch = helper.make_graph([helper.make_node("Neg", [read], ["inside"])], "branch", [], [inside])
    chosen = graph.add("If", graph.constant(np.array(True)), then_branch=branch, else_branch=branch)
    last = graph.conv(graph.add("Add", other, chosen), 4, 2)
    model = halved(graph.model({last: ["n", 2, 16, 16]}))
    back = [n.input[0] for n in model.graph.node if n.op_type == "Cast" and n.attribute[0].i == TensorProto.FLOAT]
    assert [name for name in back if name not in ("pixels", f"{last}_half")] == [read]
    weights = {w.data_type for w in model.graph.initializer if len(w.dims) == 4}
    assert weights == {TensorProto.FLOAT16}  # the float32 weights are gone


def test_weights_too_large_for_half_precision_become_its_largest_number() -> None:
    graph = Graph()
    last = graph.conv(graph.pixels(), 3, 4)
    weights = next(w for w in graph.weights if len(w.dims) == 4)
    huge = numpy_helper.to_array(weights).copy()
    huge[0, 0, 0, 0], huge[0, 0, 0, 1] = 1e9, -1e9
    weights.CopyFrom(numpy_helper.from_array(huge, weights.name))
    model = halved(graph.model({last: ["n", 4, 16, 16]}))
    (found,) = [numpy_helper.to_array(w) for w in model.graph.initializer if len(w.dims) == 4]
    assert (found.max(), found.min()) == (65504, -65504)


def test_a_model_without_layers_that_can_become_float16_is_refused() -> None:
    graph = Graph()
    mean = graph.add("ReduceMean", graph.pixels(), axes=[2, 3], keepdims=0)
    with pytest.raises(OptimiseFailed, match="no layer that can be computed in float16: expected a convolution"):
        halved(graph.model({mean: ["n", 3]}))


def test_the_converted_part_of_a_model_lies_between_its_first_and_last_layers_with_weights() -> None:
    graph = residual_classifier().graph
    part = inner_part(graph)
    operators = [node.op_type for index, node in enumerate(graph.node) if index in part.inner]
    assert operators[0] == "Conv"
    assert operators[-1] == "Gemm"
    assert {"Cast", "Mul", "Transpose", "Softmax"}.isdisjoint(operators)
    assert [graph.node[index].op_type for index in part.last] == ["Gemm"]
