"""Tests of adoption: a foreign model is refused unless its outputs fit the decoder and labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from engines import backends, decoders
from engines.decoders import DecoderOptions, FrameRegion
from engines.exceptions import AdoptFailed, ModelLoadFailed
from engines.node.serving import ServedModel
from engines.repository.adopt import AdoptOptions, adopt
from engines.repository.manifest import Model
from engines.repository.store import Repository
from ingest.contract.records import Box, Detection, Fit, Inner, Region
from ingest.site import PipelineConfig

SIZE = 64
CELLS = 8 * 8 + 4 * 4 + 2 * 2
HEAD = np.array([[0.02, -0.01, 0.01], [0.0, 0.01, 0.02], [0.01, 0.01, -0.02]], np.float32)


def save(
    path: Path, nodes: Sequence[Any], weights: dict[str, np.ndarray], outputs: dict[str, tuple[Any, ...]]
) -> Path:
    """Write a model of NCHW images. All tensors of the model have the type of its weights."""
    kind = helper.np_dtype_to_tensor_dtype(next(iter(weights.values())).dtype)
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", kind, ("N", 3, SIZE, SIZE))],
        [helper.make_tensor_value_info(name, kind, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(values, name) for name, values in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def classifier(path: Path, last: str = "", classes: int = 3, dtype: type = np.float32, flat: bool = False) -> Path:
    """Write a classifier of mean colours that ends with the operator ``last``, or with logits if ``last`` is
    empty."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "head"], ["logits"]),
    ]
    if last:
        nodes.append(helper.make_node(last, ["logits"], ["scores"]))
    if flat:
        nodes.append(helper.make_node("Squeeze", ["logits", "axes"], ["vector"]))
    weights = {"head": HEAD[:, :classes].astype(dtype)}
    output = {"vector" if flat else "scores" if last else "logits": ("N",) if flat else ("N", classes)}
    path = save(path, nodes, weights, output)
    if flat:
        model = onnx.load(str(path))
        model.graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), "axes"))
        onnx.save(model, str(path))
    return path


def detector(path: Path, table: np.ndarray) -> Path:
    """Write a detector with the same outputs for every image."""
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        helper.make_node("Reshape", ["nothing", "shape"], ["column"]),
        helper.make_node("Add", ["column", "table"], ["y"]),
    ]
    weights = {"zero": np.zeros(1, np.float32), "table": table[None].astype(np.float32)}
    path = save(path, nodes, weights, {"y": ("N", *table.shape)})
    model = onnx.load(str(path))
    model.graph.initializer.append(numpy_helper.from_array(np.array([-1, 1, 1], np.int64), "shape"))
    onnx.save(model, str(path))
    return path


def grid() -> np.ndarray:
    """Return x, y and stride of each cell."""
    rows = []
    for stride in (8, 16, 32):
        ys, xs = np.mgrid[0 : SIZE // stride, 0 : SIZE // stride]
        rows.append(np.stack([xs.ravel(), ys.ravel(), np.full(xs.size, stride)], axis=1))
    return np.concatenate(rows).astype(np.float32)


def yolox(decoded: bool = False) -> np.ndarray:
    """Return a YOLOX table for two labels, with one object of 16×16 px around (28, 36)."""
    cells = grid()
    table = np.concatenate([np.full((CELLS, 2), 0.5), np.zeros((CELLS, 5))], axis=1).astype(np.float32)
    table[4 * 8 + 3] = 0.5, 0.5, np.log(2), np.log(2), 0.9, 1.0, 0.0
    if decoded:
        table[:, :2] = (table[:, :2] + cells[:, :2]) * cells[:, 2:]
        table[:, 2:4] = np.exp(table[:, 2:4]) * cells[:, 2:]
    return table


def adopted(tmp_path: Path, file: Path, decoder: str, *labels: str, **options: Any) -> Model:
    return adopt(file, Repository(tmp_path / "models"), AdoptOptions("m", decoder, labels, **options))


def detections(model: Model, image: np.ndarray) -> list[Detection]:
    engine = backends.make("onnxruntime")
    engine.load(model)
    row = FrameRegion(Region(Box(0, 0, SIZE, SIZE), Fit(1, 1, 0, 0), Inner(0, 0, SIZE, SIZE)), SIZE, SIZE)
    decoder = decoders.make(model.manifest.decoder, DecoderOptions(model.manifest.labels, SIZE, SIZE, min_score=0.0))
    (found,) = decoder.decode(engine.infer(image[None]), [row])
    engine.close()
    return found


GREY = np.full((SIZE, SIZE, 3), 100, np.uint8)


@pytest.mark.parametrize(("last", "flat"), [("", False), ("", True), ("Sigmoid", False)])
def test_a_sigmoid_is_appended_to_a_model_that_returns_the_logit_of_a_single_class(
    tmp_path: Path, last: str, flat: bool
) -> None:
    file = classifier(tmp_path / "m.onnx", last, classes=1, flat=flat)
    with pytest.raises(AdoptFailed, match="A model of one class needs the decoder sigmoid"):
        adopted(tmp_path, file, "softmax", "defect")
    (found,) = detections(adopted(tmp_path, file, "sigmoid", "defect"), GREY)
    assert found.score == pytest.approx(1 / (1 + np.exp(-100 * HEAD[:, 0].sum())), abs=1e-4)


def test_independent_class_scores_are_accepted_with_decoder_sigmoid_and_refused_with_softmax(tmp_path: Path) -> None:
    file = classifier(tmp_path / "m.onnx", "Sigmoid")
    with pytest.raises(AdoptFailed, match=r"expected probabilities.*Use the decoder sigmoid"):
        adopted(tmp_path, file, "softmax", "red", "blue", "green")
    found = detections(adopted(tmp_path, file, "sigmoid", "red", "blue", "green"), GREY)
    expected = 1 / (1 + np.exp(-100 * HEAD.sum(axis=0)))
    assert {d.class_id: pytest.approx(d.score, abs=1e-4) for d in found} == dict(enumerate(expected))


def test_a_yolox_model_with_raw_grid_outputs_is_accepted_and_one_with_decoded_boxes_is_refused(
    tmp_path: Path,
) -> None:
    model = adopted(tmp_path, detector(tmp_path / "raw.onnx", yolox()), "yolox", "car", "person")
    best = detections(model, GREY)[0]
    np.testing.assert_allclose(best.box, (20, 28, 36, 44), atol=0.01)
    decoded = detector(tmp_path / "decoded.onnx", yolox(decoded=True))
    with pytest.raises(AdoptFailed, match=r"pixels of the input.*decode_in_inference"):
        adopted(tmp_path, decoded, "yolox", "car", "person")
    bare = yolox()
    bare[:, 4:] = -4.0  # logits
    with pytest.raises(AdoptFailed, match=r"expected 0 to 1.*sigmoids"):
        adopted(tmp_path, detector(tmp_path / "bare.onnx", bare), "yolox", "car", "person")


def test_a_yolov8_layout_and_a_wrong_number_of_labels_are_refused_with_the_next_step(tmp_path: Path) -> None:
    v8 = detector(tmp_path / "v8.onnx", np.zeros((6, CELLS), np.float32))
    with pytest.raises(AdoptFailed, match=r"y \[6, 84\].*expected \(3, 84, 7\).*read these outputs: yolov8$"):
        adopted(tmp_path, v8, "yolox", "car", "person")
    with pytest.raises(AdoptFailed, match="has 2 classes: pass a --labels file with 2 lines"):
        adopted(tmp_path, detector(tmp_path / "raw.onnx", yolox()), "yolox", "car")
    with pytest.raises(AdoptFailed, match="has 3 classes: pass a --labels file with 3 lines"):
        adopted(tmp_path, classifier(tmp_path / "c.onnx", "Softmax"), "softmax", "car", "person")
    assert Repository(tmp_path / "models").names() == []


def test_a_half_precision_model_is_served_with_float_outputs(tmp_path: Path) -> None:
    file = classifier(tmp_path / "m.onnx", "Softmax", dtype=np.float16)
    found = detections(adopted(tmp_path, file, "softmax", "red", "blue", "green", scale=(0.5, 0.5, 0.5)), GREY)
    logits = 50 * HEAD.sum(axis=0)
    expected = np.exp(logits) / np.exp(logits).sum()
    assert found[0].score == pytest.approx(expected.max(), abs=2e-3)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_model_whose_tensor_names_collide_with_those_added_by_adoption_keeps_its_outputs(
    tmp_path: Path, dtype: type
) -> None:
    """The input is ``pixels``, and the tensors between the nodes have the names that adoption gives to its own."""
    file = classifier(tmp_path / "m.onnx", "Sigmoid", dtype=dtype)
    names = {"x": "pixels", "pooled": "sightline_float", "flat": "sightline_mean", "logits": "sightline_cast_scores"}
    names["head"] = "sightline_scale"
    model = onnx.load(str(file))
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for value in (*model.graph.input, *model.graph.initializer):
        value.name = names[value.name]
    onnx.save(model, str(file))
    prepared = {"mean": (1.0, 2.0, 3.0), "scale": (0.5, 0.5, 0.5)}
    stored = adopted(tmp_path, file, "sigmoid", "red", "blue", "green", **prepared)
    assert stored.manifest.input.name == "pixels_"
    expected = 1 / (1 + np.exp(-((100 - np.array([1, 2, 3])) * 0.5) @ HEAD))
    found = {d.class_id: d.score for d in detections(stored, GREY)}
    assert found == pytest.approx(dict(enumerate(expected)), abs=2e-3)


def test_the_error_for_a_model_repository_that_cannot_be_written_names_the_next_step(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file")
    file = classifier(tmp_path / "m.onnx", "Softmax")
    with pytest.raises(AdoptFailed, match=r"models/m/1: .+: expected a writable folder"):
        adopted(tmp_path, file, "softmax", "red", "blue", "green")


def test_the_error_for_a_model_that_cannot_run_states_the_reason(tmp_path: Path) -> None:
    nodes = [helper.make_node("Einsum", ["x"], ["y"], equation="abcd->zz")]
    file = save(tmp_path / "m.onnx", nodes, {"w": np.zeros(1, np.float32)}, {"y": ("N", 3)})
    with pytest.raises(AdoptFailed, match=r"ONNX Runtime cannot run the model: .+"):
        adopted(tmp_path, file, "softmax", "red", "blue", "green")


def test_a_classifier_with_several_outputs_is_refused_unless_the_user_chooses_one(tmp_path: Path) -> None:
    file = classifier(tmp_path / "m.onnx", "Softmax")
    model = onnx.load(str(file))
    model.graph.output.insert(0, helper.make_tensor_value_info("flat", TensorProto.FLOAT, ("N", 3)))
    onnx.save(model, str(file))
    with pytest.raises(AdoptFailed, match=r"outputs flat, scores.*--output NAME"):
        adopted(tmp_path, file, "softmax", "red", "blue", "green")
    with pytest.raises(AdoptFailed, match="nothing does not exist: expected one of flat, scores"):
        adopted(tmp_path, file, "softmax", "red", "blue", "green", output="nothing")
    found = detections(adopted(tmp_path, file, "softmax", "red", "blue", "green", output="scores"), GREY)
    assert sum(d.score for d in found) <= 1.0


def test_a_node_refuses_a_stored_model_that_its_decoder_cannot_read(tmp_path: Path) -> None:
    model = adopted(tmp_path, classifier(tmp_path / "m.onnx", "Softmax"), "softmax", "red", "blue", "green")
    manifest = model.manifest.model_copy(update={"labels": ("red",)})
    pipeline = PipelineConfig(name="p", model="m", width=SIZE, height=SIZE, fit="letterbox")
    served = ServedModel(pipeline, Model(manifest, model.folder), backends.make("onnxruntime"))
    with pytest.raises(ModelLoadFailed, match=r"decoder softmax: .*expected \(3, 1\)"):
        served.open()
    served.close()
