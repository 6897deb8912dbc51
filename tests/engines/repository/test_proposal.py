"""Tests of the inspection of foreign models: layout, settings, labels and the settings that are assumed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from engines import backends
from engines.exceptions import AdoptFailed, DecoderUnknown
from engines.repository import inspection
from engines.repository.adopt import COCO_LABELS
from engines.repository.manifest import Decoding
from engines.repository.proposal import examined
from engines.repository.report import ModelReport, Overrides
from engines.repository.store import Repository
from tests.engines.repository.foreign import classifier, table, write

BOX = np.array([[0.2, 0.2, 0.6, 0.6], [0.1, 0.3, 0.4, 0.9]])


def examine(file: Path, **overrides: object) -> ModelReport:
    return examined(file, "m", Overrides(**overrides), None)


def value(report: ModelReport, key: str) -> object:
    return {setting.key: setting.value for setting in report.settings}[key]


def sources(report: ModelReport) -> dict[str, str]:
    return {setting.key: setting.source for setting in report.settings}


@pytest.mark.parametrize(
    ("shape", "dtype", "layout"),
    [
        (("N", 3, 8, 8), np.float32, "nchw"),
        (("N", 8, 8, 3), np.float32, "nhwc"),
        ((1, 8, 8, 3), np.uint8, "nhwc"),
        ((1, 3, 8, 8), np.float16, "nchw"),
        ((4, 3, 8, 8), np.float32, "nchw"),
    ],
)
def test_a_stored_model_returns_the_outputs_of_the_original_in_every_layout_and_type(
    tmp_path: Path, shape: tuple[int | str, ...], dtype: type, layout: str
) -> None:
    file = classifier(tmp_path / "m.onnx", shape, dtype)
    report = examined(file, "m", Overrides(mean=(1, 2, 3), scale=(0.1, 0.1, 0.1)), tmp_path / "models")
    assert (report.layout, report.model, report.max_batch) == (layout, "m@1", 8)
    pixels = np.random.default_rng(2).integers(0, 256, (2, 8, 8, 3), np.uint8)
    pixels[0, ..., 1] //= 2
    engine = backends.make("onnxruntime")
    engine.load(Repository(tmp_path / "models").open("m"))
    (found,) = engine.infer(pixels).values()
    engine.close()
    means = ((pixels.astype(np.float64) - (1, 2, 3)) * 0.1).mean(axis=(1, 2))
    wanted = np.exp(means - means.max(axis=1, keepdims=True))
    np.testing.assert_allclose(found, wanted / wanted.sum(axis=1, keepdims=True), atol=0.02)


def test_settings_that_the_model_file_does_not_state_are_marked_as_assumed(tmp_path: Path) -> None:
    report = examine(classifier(tmp_path / "m.onnx"))
    assert value(report, "decoder") == "softmax"
    assert value(report, "labels") == ("class_0", "class_1", "class_2")
    assert (value(report, "colour"), value(report, "fit")) == ("rgb", "crop")
    assert value(report, "mean") == (123.675, 116.28, 103.53)
    assert {s.key for s in report.assumed()} == {"labels", "colour", "fit", "mean", "scale"}


def test_options_of_the_user_override_every_proposed_setting(tmp_path: Path) -> None:
    fixed = {
        "labels": ("a", "b", "c"),
        "colour": "bgr",
        "fit": "stretch",
        "mean": (0, 0, 0),
        "scale": (0.1, 0.1, 0.1),
    }
    report = examine(classifier(tmp_path / "m.onnx"), decoder="softmax", **fixed)
    assert {key: value(report, key) for key in fixed} == fixed
    assert set(sources(report).values()) == {"option"}
    with pytest.raises(DecoderUnknown, match="magic"):
        examine(tmp_path / "m.onnx", decoder="magic")
    with pytest.raises(AdoptFailed, match=r"decoder sigmoid|scores"):
        examine(table(tmp_path / "t.onnx", {"y": np.ones((3, 4))}), decoder="sigmoid")


def test_a_model_with_uint8_input_gets_no_normalisation(tmp_path: Path) -> None:
    report = examine(classifier(tmp_path / "m.onnx", ("N", 8, 8, 3), np.uint8))
    assert (value(report, "mean"), value(report, "scale")) == ((0, 0, 0), (1, 1, 1))
    assert sources(report)["mean"] == "file"


def test_a_model_that_normalises_its_input_itself_gets_plain_pixels(tmp_path: Path) -> None:
    report = examine(classifier(tmp_path / "m.onnx", first=[helper.make_node("Mul", ["x", "shift"], ["prepared"])]))
    assert (value(report, "mean"), value(report, "scale")) == ((0, 0, 0), (1, 1, 1))


def test_decoder_and_labels_come_from_the_metadata_that_the_exporter_wrote(tmp_path: Path) -> None:
    boxes = np.zeros((6, 84))
    boxes[:2], boxes[2:4], boxes[4] = 30, 9, np.linspace(0.1, 0.9, 84)
    metadata = {"names": "{0: 'car', 1: 'person'}", "stride": "32"}
    report = examine(table(tmp_path / "m.onnx", {"y": boxes}, metadata=metadata))
    assert (value(report, "decoder"), value(report, "labels")) == ("yolov8", ("car", "person"))
    assert set(sources(report).values()) == {"file"}
    hostile = {"names": "__import__('os').abort()", "stride": "32"}
    assert value(examine(table(tmp_path / "h.onnx", {"y": boxes}, metadata=hostile)), "labels") == (
        "class_0",
        "class_1",
    )


@pytest.mark.parametrize(("scale", "settings"), [(1, {}), (64, {"unit": "px"})])
def test_the_unit_of_box_corners_is_found_from_the_model_outputs(
    tmp_path: Path, scale: int, settings: dict[str, str]
) -> None:
    tables = {"scores": np.tile([[0.9, 0.1], [0.2, 0.8]], (600, 1)), "boxes": np.tile(BOX, (600, 1)) * scale}
    report = examine(table(tmp_path / "m.onnx", tables))
    found = {setting.key: setting.value for setting in report.settings}
    assert found["decoder"] == "corners"
    assert found["labels"] == ("background", "object")
    assert (found["decoding"].settings if settings else {}) == settings


def padding(score: float, label: int) -> np.ndarray:
    """Return 20 rows of left, top, right, bottom in px, a faint score and a class."""
    return np.tile(np.concatenate([BOX[0] * 64, [score, label]]), (20, 1))


@pytest.mark.parametrize("rows", [padding(0.001, 3), np.zeros((20, 6))], ids=["faint", "zeros"])
def test_unit_and_order_of_box_corners_are_assumed_if_the_model_finds_no_object_in_noise(
    tmp_path: Path, rows: np.ndarray
) -> None:
    file = table(tmp_path / "m.onnx", {"y": rows})
    report = examine(file)
    assert value(report, "decoder") == "end2end"
    assert value(report, "decoding") == Decoding(settings={"unit": "px", "order": "left-top", "first_class": 0})
    assert "decoding" in {setting.key for setting in report.assumed()}
    chosen = examine(file, decoder="end2end")
    assert sources(chosen)["decoding"] == "assumed"
    fixed = examine(file, decoding={"unit": "share"})
    assert value(fixed, "decoding") == Decoding(settings={"unit": "share"})
    assert sources(fixed)["decoding"] == "option"


def test_a_decoder_that_finds_objects_is_preferred_to_a_decoder_that_finds_none(tmp_path: Path) -> None:
    queries = np.tile([0.5, 0.5, 0.2, 0.2, 0.001, 0.0], (20, 1))
    queries[3, 5] = 1.0
    report = examine(table(tmp_path / "m.onnx", {"y": queries}))
    assert value(report, "decoder") == "rtdetr"
    assert [reason.partition(" ")[0] for reason in report.rejected] == ["end2end"]
    assert "show no object" in report.rejected[0]


def test_the_first_proposed_decoder_is_kept_if_no_other_decoder_finds_objects(tmp_path: Path) -> None:
    report = examine(table(tmp_path / "m.onnx", {"y": padding(0.001, 0)}), labels=("car",))
    assert value(report, "decoder") == "end2end"
    assert [reason.partition(" ")[0] for reason in report.rejected] == ["yolov5"]


def test_an_input_size_is_assumed_only_for_a_model_that_accepts_any_size(tmp_path: Path) -> None:
    file = classifier(tmp_path / "m.onnx", ("N", 3, "h", "w"))
    assert value(examine(file), "size") == (640, 640)
    report = examine(file, size=(32, 16))
    assert value(report, "size") == (32, 16)
    with pytest.raises(AdoptFailed, match="expected 8x8, the fixed input size of the model file"):
        examine(classifier(tmp_path / "f.onnx"), size=(32, 16))


def test_the_error_for_unknown_model_outputs_lists_the_decoders_that_were_tried(tmp_path: Path) -> None:
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    with pytest.raises(AdoptFailed, match=r"y \[3, 8, 8\].*no decoder can read them: no known layout.*Decoders: "):
        examine(write(tmp_path / "m.onnx", nodes, ("N", 3, 8, 8), {"y": ("N", 3, 8, 8)}))
    with pytest.raises(AdoptFailed, match="no layout has 2 classes"):
        examine(classifier(tmp_path / "c.onnx"), labels=("a", "b"))


def test_a_model_that_works_only_with_a_batch_of_two_images_is_refused(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Reshape", ["x", "flat"], ["all"]),
        helper.make_node("Slice", ["all", "start", "end"], ["means"]),
        helper.make_node("Reshape", ["means", "rows"], ["y"]),
    ]
    weights = {
        "flat": np.array([-1], np.int64),
        "start": np.array([0], np.int64),
        "end": np.array([6], np.int64),
        "rows": np.array([2, 3], np.int64),
    }
    file = write(tmp_path / "m.onnx", nodes, (2, 3, 8, 8), {"y": (2, 3)}, weights)
    with pytest.raises(AdoptFailed, match="fixed batch size 2: expected a dynamic batch size, or 1"):
        examine(file, decoder="softmax", labels=("a", "b", "c"))


@pytest.mark.parametrize("shape", [("N", 1, 8, 8), ("N", 8, 8), (1, 3, 9000, 9000)])
def test_a_model_whose_input_is_not_a_colour_picture_is_refused(tmp_path: Path, shape: tuple[int | str, ...]) -> None:
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    with pytest.raises(AdoptFailed, match="expected"):
        examine(write(tmp_path / "m.onnx", nodes, shape, {"y": shape}))


def test_a_model_with_eighty_classes_gets_the_class_names_of_coco(tmp_path: Path) -> None:
    scores = np.full((2100, 85), 0.01)
    scores[:, :4], scores[0, 4:6] = 0.5, 0.9
    report = examine(table(tmp_path / "m.onnx", {"y": scores}, size=320))
    assert (value(report, "decoder"), value(report, "labels")) == ("yolox", COCO_LABELS)
    assert sources(report)["labels"] == "assumed"


def test_an_inspection_reads_and_hashes_the_model_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = classifier(tmp_path / "m.onnx")
    reads: list[str] = []
    load, sha256 = onnx.load_model, inspection.sha256_of
    monkeypatch.setattr(onnx, "load_model", lambda path, **how: reads.append("read") or load(path, **how))
    monkeypatch.setattr(inspection, "sha256_of", lambda path: reads.append("hash") or sha256(path))
    report = examined(file, "m", Overrides(), tmp_path / "models")
    assert reads == ["read", "hash"]
    assert report.sha256 == Repository(tmp_path / "models").open("m").manifest.origin["sha256"] == sha256(file)
