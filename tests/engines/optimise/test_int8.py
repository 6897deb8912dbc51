"""Tests of quantisation: the form of ONNX Runtime, the form and the rules of TensorRT, and the layers that stay
float."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, numpy_helper

from engines.exceptions import OptimiseFailed
from engines.optimise.int8 import FORMS, Form, quantised
from tests.engines.optimise.networks import Graph, pictures, residual_classifier, run

CALIBRATION = [picture[None] for picture in pictures(16, seed=1)]


@pytest.fixture(scope="module")
def int8() -> dict[Form, Any]:
    """Return the residual classifier in both forms."""
    return {form: quantised(residual_classifier(), form, CALIBRATION) for form in FORMS}


def makers(model: Any) -> dict[str, Any]:
    return {name: node for node in model.graph.node for name in node.output}


def constants(model: Any) -> dict[str, np.ndarray]:
    return {w.name: numpy_helper.to_array(w) for w in model.graph.initializer}


@pytest.mark.parametrize("form", FORMS)
def test_signed_and_unsigned_int8_models_give_nearly_the_outputs_of_the_original(
    int8: dict[Form, Any], form: Form
) -> None:
    images = pictures(32, seed=2)
    (wanted,), (found,) = run(residual_classifier(), images), run(int8[form], images)
    assert found.dtype == np.float32
    assert np.mean(found.argmax(axis=1) == wanted.argmax(axis=1)) >= 0.9
    assert np.abs(found - wanted).mean() < 0.05
    assert int8[form].graph.input[0].type.tensor_type.elem_type == TensorProto.UINT8


@pytest.mark.parametrize("form", FORMS)
def test_the_last_layer_with_weights_of_an_int8_model_stays_float32(int8: dict[Form, Any], form: Form) -> None:
    model = int8[form]
    made, values = makers(model), constants(model)
    (last,) = [node for node in model.graph.node if node.op_type == "Gemm"]
    assert values[last.input[1]].dtype == np.float32
    convs = [node for node in model.graph.node if node.op_type == "Conv"]
    assert len(convs) == 6
    for node in convs:
        assert made[node.input[0]].op_type == "DequantizeLinear"
        assert made[node.input[1]].op_type == "DequantizeLinear"


def test_int8_activations_are_unsigned_for_onnx_runtime_and_signed_for_tensorrt(int8: dict[Form, Any]) -> None:
    for form, kind in (("u8s8", np.uint8), ("s8s8", np.int8)):
        model = int8[form]
        values = constants(model)
        found = {values[node.input[2]].dtype for node in model.graph.node if node.op_type == "QuantizeLinear"}
        assert np.dtype(kind) in found
        assert found <= {np.dtype(kind), np.dtype(np.int8)}


def test_a_signed_int8_model_follows_the_documented_quantisation_rules_of_tensorrt(int8: dict[Form, Any]) -> None:
    """Check the rules of NVIDIA's documentation of explicit quantisation, and of onnx-tensorrt's operators.md."""
    model = int8["s8s8"]
    made, values = makers(model), constants(model)
    for node in model.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        scale, zero = values[node.input[1]], values[node.input[2]]
        assert zero.dtype == np.int8, "TensorRT reads INT8 only"
        assert not zero.any(), "zero points are 0"
        assert (scale > 0).all()
        axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
        is_weight = node.input[0] in values
        assert scale.ndim == 0 or (is_weight and axis == 0), "a scale for each output channel of weights only"
    for node in model.graph.node:
        if node.op_type == "Conv":
            assert values[node.input[2]].dtype == np.float32, "the bias stays float"
        if node.op_type == "Relu":
            assert made[node.input[0]].op_type in ("Conv", "Add"), "nothing stands between a convolution and its Relu"
        if node.op_type == "Add":
            kinds = sorted(made[name].op_type for name in node.input)
            assert kinds == ["Conv", "DequantizeLinear"], "one input of a sum comes straight from its convolution"


@pytest.mark.parametrize("form", FORMS)
def test_weights_of_an_int8_model_are_stored_in_eight_bits(int8: dict[Form, Any], form: Form) -> None:
    weights = [values for values in constants(int8[form]).values() if values.ndim == 4]
    assert len(weights) == 6
    assert {values.dtype for values in weights} == {np.dtype(np.int8)}


@pytest.mark.parametrize("form", FORMS)
def test_depthwise_convolutions_stay_float32_and_grouped_convolutions_do_not(form: Form) -> None:
    graph = Graph()
    top = graph.add("Relu", graph.conv(graph.pixels(), 3, 8))
    depthwise = graph.add("Relu", graph.conv(top, 8, 8, group=8))
    grouped = graph.add("Relu", graph.conv(depthwise, 8, 8, group=2))
    model = quantised(graph.model({graph.conv(grouped, 8, 2): ["n", 2, 16, 16]}), form, CALIBRATION)
    made = makers(model)
    groups = {
        attribute.i: node for node in model.graph.node for attribute in node.attribute if attribute.name == "group"
    }
    assert groups[8].input[1] not in made
    assert made[groups[2].input[1]].op_type == "DequantizeLinear"


@pytest.mark.parametrize("form", FORMS)
def test_a_model_with_an_old_operator_set_is_quantised(form: Form) -> None:
    graph = Graph()
    first = graph.conv(graph.pixels(), 3, 8)
    last = graph.conv(graph.add("Relu", graph.conv(graph.add("Relu", first), 8, 8)), 8, 2)
    model = graph.model({last: ["n", 2, 16, 16]}, opset=11)
    (wanted,) = run(model, pictures(4))
    (found,) = run(quantised(model, form, CALIBRATION), pictures(4))
    assert np.abs(found - wanted).mean() < 0.1 * np.abs(wanted).mean()


def test_int8_calibration_reads_every_picture_once() -> None:
    seen: list[int] = []
    quantised(residual_classifier(), "u8s8", iter(CALIBRATION), on_picture=lambda: seen.append(1))
    assert len(seen) == len(CALIBRATION)


def test_an_int8_model_with_a_reduced_range_has_weights_of_seven_bits() -> None:
    model = quantised(residual_classifier(), "u8s8", CALIBRATION, reduce_range=True)
    weights = [values for values in constants(model).values() if values.dtype == np.int8 and values.ndim == 4]
    assert len(weights) == 6
    assert max(np.abs(values.astype(int)).max() for values in weights) <= 64


def test_quantising_a_model_with_a_single_layer_is_refused() -> None:
    graph = Graph()
    only = graph.conv(graph.pixels(), 3, 4)
    with pytest.raises(
        OptimiseFailed, match="no layer to quantise: expected a convolution followed by another layer"
    ):
        quantised(graph.model({only: ["n", 4, 16, 16]}), "u8s8", CALIBRATION)
