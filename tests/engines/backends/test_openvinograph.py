"""Tests of the rewrites of OpenVINO's graphs: the outputs, the accuracy of int8, and graphs that stay unchanged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from engines.backends import openvino as backend
from engines.backends.openvinograph import rewrite
from engines.optimise.int8 import FORMS, Form, quantised
from engines.repository.manifest import Model
from engines.repository.store import Repository
from tests.engines.optimise.networks import SIZE, Graph, pictures, residual_classifier, run
from tests.paths import MODELS

CHANNELS = 8
IMAGES = pictures(8, seed=3)


def silu(graph: Graph, source: str) -> str:
    return graph.add("Mul", source, graph.add("Sigmoid", source))


def detector() -> Any:
    """Return a detector whose feature maps of two sizes are flattened, joined and transposed."""
    graph = Graph()
    large = silu(graph, graph.conv(graph.pixels(), 3, CHANNELS))
    small = silu(graph, graph.conv(large, CHANNELS, CHANNELS, stride=2))
    shape = graph.constant(np.array([0, 5, -1]))
    maps = [graph.add("Reshape", graph.conv(top, CHANNELS, 5, kernel=1), shape) for top in (large, small)]
    boxes = graph.add("Transpose", graph.add("Concat", *maps, axis=2), perm=[0, 2, 1])
    return graph.model({boxes: ["n", SIZE * SIZE + SIZE * SIZE // 4, 5]})


def joined_branches() -> Any:
    """Return a network that joins two branches, one of which is also an input of a sum with far larger values.

    Its convolutions have kernels of 1 without padding, and of 3 with padding.
    """
    graph = Graph()
    top = silu(graph, graph.conv(graph.pixels(), 3, CHANNELS))
    small = silu(graph, graph.conv(top, CHANNELS, CHANNELS, kernel=1))
    inner = silu(graph, graph.conv(small, CHANNELS, CHANNELS))
    large = silu(
        graph, graph.conv(graph.add("Mul", inner, graph.constant(np.float32(9))), CHANNELS, CHANNELS, kernel=1)
    )
    summed = graph.add("Add", large, small)
    joined = graph.add("Concat", summed, silu(graph, graph.conv(top, CHANNELS, CHANNELS, kernel=1)), axis=1)
    last = silu(graph, graph.conv(joined, 2 * CHANNELS, CHANNELS, kernel=1))
    side = silu(graph, graph.conv(small, CHANNELS, CHANNELS, kernel=1))
    return graph.model({graph.conv(graph.add("Add", last, side), CHANNELS, 4): ["n", 4, SIZE, SIZE]})


def quantised_activations(graph: Graph, form: Form, dtype: Any = np.float32) -> str:
    """Add a first layer whose activations pass through quantise and dequantise nodes with scales of ``dtype``."""
    top = silu(graph, graph.conv(graph.pixels(), 3, CHANNELS))
    zero_point = np.array(0, np.int8) if form == "s8s8" else np.array(30, np.uint8)
    scale = graph.constant(np.array(0.05, dtype)), graph.constant(zero_point)
    cast = graph.add("Cast", top, to=onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
    return graph.add("DequantizeLinear", graph.add("QuantizeLinear", cast, *scale), *scale)


def int8_weights(graph: Graph, dtype: Any = np.float32) -> str:
    """Add int8 weights of a convolution with a kernel of 1, from ``CHANNELS`` to 4 channels."""
    values = np.random.default_rng(4).integers(-127, 128, (4, CHANNELS, 1, 1), np.int8)
    scales = graph.constant(np.linspace(0.001, 0.004, 4, dtype=np.float32).astype(dtype))
    return graph.add("DequantizeLinear", graph.constant(values), scales, graph.constant(np.zeros(4, np.int8)), axis=0)


def read(model: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return an ONNX model in OpenVINO's form, without rewrites."""
    onnx.save(model, str(folder / "model.onnx"))
    backend._core()
    with monkeypatch.context() as patched:
        patched.setattr(backend, "rewrite", lambda model: None)
        manifest = Repository(MODELS).open("regions").manifest.model_copy(update={"file": "model.onnx"})
        return backend._read(Model(manifest, folder))


def rewritten(model: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return an ONNX model in OpenVINO's form, with rewrites."""
    graph = read(model, folder, monkeypatch)
    rewrite(graph)
    return graph


def in_int8(model: Any, form: Form) -> Any:
    return quantised(model, form, [picture[None] for picture in pictures(16, seed=1)])


def require_near(graph: Any, model: Any, share: float = 1e-4) -> None:
    """Require the outputs of ONNX Runtime, up to a share of the largest output."""
    (expected,) = run(model, IMAGES)
    np.testing.assert_allclose(outputs(graph), expected, atol=share * np.abs(expected).max())


def outputs(graph: Any) -> np.ndarray:
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    (found,) = backend._core().compile_model(graph, "CPU", options)([IMAGES]).values()
    return np.array(found)


def operators(graph: Any) -> Counter[str]:
    return Counter(node.get_type_name() for node in graph.get_ordered_ops())


def test_a_detector_gives_the_same_boxes_if_feature_maps_are_transposed_before_they_are_joined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = read(detector(), tmp_path, monkeypatch)
    expected, before = outputs(graph), graph.outputs[0].get_names()
    rewrite(graph)
    np.testing.assert_array_equal(outputs(graph), expected)
    assert graph.outputs[0].get_names() == before
    (last,) = (node for node in graph.get_ordered_ops() if node.get_type_name() == "Result")
    joined = last.input_value(0).get_node()
    assert joined.get_type_name() == "Concat"
    for flat in joined.input_values():
        assert flat.get_node().input_value(0).get_node().get_type_name() == "Transpose"


@pytest.mark.parametrize("form", FORMS)
def test_openvino_computes_joined_int8_branches_as_accurately_as_onnx_runtime(
    form: Form, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = in_int8(joined_branches(), form)
    require_near(rewritten(model, tmp_path, monkeypatch), model)


def test_padding_that_depends_on_the_size_of_the_input_counts_as_padding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = Graph()
    inner = silu(graph, graph.conv(silu(graph, graph.conv(graph.pixels(), 3, CHANNELS)), CHANNELS, CHANNELS))
    model = graph.model({graph.conv(inner, CHANNELS, 4): ["n", 4, SIZE, SIZE]})
    for node in model.graph.node:
        if node.op_type == "Conv":
            del node.attribute[:]
            node.attribute.append(onnx.helper.make_attribute("auto_pad", "SAME_UPPER"))
    model = in_int8(model, "s8s8")
    for value in (model.graph.input[0], model.graph.output[0]):
        for index, dimension in enumerate(value.type.tensor_type.shape.dim):
            dimension.dim_param = f"size {index}"
    require_near(rewritten(model, tmp_path, monkeypatch), model)


def test_the_zero_point_stays_in_front_of_padded_convolutions_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = in_int8(joined_branches(), "s8s8")
    graph = rewritten(model, tmp_path, monkeypatch)
    found = Counter()
    for node in graph.get_ordered_ops():
        source = node.input_value(0).get_node() if node.get_type_name() == "Convolution" else None
        if source is not None and source.get_type_name() == "Multiply":
            subtracts = source.input_value(0).get_node().get_type_name() == "Subtract"
            found[any(node.get_attributes()["pads_begin"]), subtracts] += 1
    assert found == {(True, True): 2, (False, False): 5}


def upsampling() -> Any:
    """Return a network with a transposed convolution."""
    graph = Graph()
    top = graph.add("Relu", graph.conv(graph.pixels(), 3, CHANNELS))
    weights = np.random.default_rng(5).standard_normal((CHANNELS, CHANNELS, 2, 2)).astype(np.float32)
    large = graph.add("Relu", graph.add("ConvTranspose", top, graph.constant(weights), strides=[2, 2]))
    return graph.model({graph.conv(large, CHANNELS, 4): ["n", 4, 2 * SIZE, 2 * SIZE]})


def attention() -> Any:
    """Return a network that multiplies activations with each other."""
    graph = Graph()
    top = graph.add("Relu", graph.conv(graph.pixels(), 3, CHANNELS))
    flat = graph.add("Reshape", top, graph.constant(np.array([0, CHANNELS, -1])))
    products = graph.add("MatMul", flat, graph.add("Transpose", flat, perm=[0, 2, 1]))
    weights = np.random.default_rng(5).standard_normal((CHANNELS, 4)).astype(np.float32)
    return graph.model({graph.add("MatMul", products, graph.constant(weights)): ["n", CHANNELS, 4]})


def layers_in_int8(graph: Any) -> int:
    """Return how many layers with weights or products OpenVINO computes in 8 bits."""
    compiled = backend._core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    facts = [node.get_rt_info() for node in compiled.get_runtime_model().get_ordered_ops()]
    kinds = [(str(fact["layerType"].astype(str)), str(fact["runtimePrecision"].astype(str))) for fact in facts]
    layers = ("Convolution", "Deconvolution", "MatMul", "FullyConnected")
    return sum(kind in layers and precision in ("i8", "u8") for kind, precision in kinds)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("network", [residual_classifier, joined_branches, upsampling, attention])
def test_openvino_computes_as_many_layers_in_int8_as_without_rewrites(
    network: Callable[[], Any], form: Form, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = in_int8(network(), form)
    graph = read(model, tmp_path, monkeypatch)
    before = layers_in_int8(graph)
    rewrite(graph)
    assert layers_in_int8(graph) >= before > 0


@pytest.mark.parametrize("form", FORMS)
def test_an_int8_convolution_without_a_bias_that_is_an_output_keeps_its_name_and_result(
    form: Form, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = Graph()
    last = graph.add("Conv", quantised_activations(graph, form), int8_weights(graph))
    model = graph.model({last: ["n", 4, SIZE, SIZE]})
    changed = rewritten(model, tmp_path, monkeypatch)
    require_near(changed, model)
    assert changed.outputs[0].get_names() == {last}


def test_signed_activations_with_a_zero_point_keep_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = Graph()
    top = silu(graph, graph.conv(graph.pixels(), 3, CHANNELS))
    scale = graph.constant(np.float32(0.05)), graph.constant(np.array(-90, np.int8))
    activations = graph.add("DequantizeLinear", graph.add("QuantizeLinear", top, *scale), *scale)
    model = graph.model({graph.add("Conv", activations, int8_weights(graph)): ["n", 4, SIZE, SIZE]})
    require_near(rewritten(model, tmp_path, monkeypatch), model)


@pytest.mark.parametrize("form", FORMS)
def test_scales_in_half_precision_are_kept(form: Form, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = Graph()
    halved = graph.add("Conv", quantised_activations(graph, form, np.float16), int8_weights(graph, np.float16))
    model = graph.model({graph.add("Cast", halved, to=onnx.TensorProto.FLOAT): ["n", 4, SIZE, SIZE]}, opset=19)
    require_near(rewritten(model, tmp_path, monkeypatch), model, share=0.01)


@pytest.mark.parametrize(
    ("shape", "axis", "order"),
    [((0, 5, -1), 1, (0, 2, 1)), ((0, 10, -1), 2, (0, 2, 1)), ((0, 5, -1), 2, (1, 2, 0)), ((0, -1, 5), 2, (0, 2, 1))],
)
def test_other_concatenations_and_transpositions_keep_their_outputs(
    shape: tuple[int, ...], axis: int, order: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = Graph()
    top = silu(graph, graph.conv(graph.pixels(), 3, CHANNELS))
    target = graph.constant(np.array(shape))
    maps = [graph.add("Reshape", graph.conv(top, CHANNELS, 5, kernel=1), target) for _ in range(2)]
    last = graph.add("Transpose", graph.add("Concat", *maps, axis=axis), perm=order)
    unchanged = read(graph.model({last: ["a", "b", "c"]}), tmp_path, monkeypatch)
    expected, before = outputs(unchanged), operators(unchanged)
    rewrite(unchanged)
    np.testing.assert_array_equal(outputs(unchanged), expected)
    assert operators(unchanged) == before


@pytest.mark.parametrize("name", ["regions", "appearance"])
def test_the_graph_of_a_float_model_without_a_joined_output_stays_unchanged(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = read(onnx.load(str(Repository(MODELS).open(name).path)), tmp_path, monkeypatch)
    before = operators(graph)
    rewrite(graph)
    assert operators(graph) == before
