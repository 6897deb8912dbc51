"""Tests that adoption refuses the wrong decoder, names the right one, and that the right one finds the object."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines import decoders
from engines.exceptions import AdoptFailed, ManifestError
from engines.repository.adopt import AdoptOptions, adopt
from engines.repository.manifest import Decoding, Model
from engines.repository.proposal import examined
from engines.repository.report import Overrides
from engines.repository.store import Repository
from tests.engines.decoders.models import constant_model, detections

SIZE = 64
LABELS = ("car", "person")
OBJECT = (20.0, 28.0, 44.0, 52.0)
"""The one object of every model: a person, in px of the input."""
BLACK = np.zeros((SIZE, SIZE, 3), np.uint8)
Tables = dict[str, np.ndarray]


def faint() -> tuple[np.ndarray, np.ndarray]:
    """Return 84 boxes of 16×16 px in rows and columns, with low scores, and OBJECT in the place of the first."""
    ys, xs = np.mgrid[0:7, 0:12]
    low = np.stack([xs.ravel(), ys.ravel()], axis=1) * 4.0
    boxes = np.concatenate([low, low + 16], axis=1)
    scores = np.full((84, 2), 0.01)
    boxes[0], scores[0] = OBJECT, (0.05, 0.9)
    return boxes, scores


def centred(boxes: np.ndarray) -> np.ndarray:
    return np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], axis=1)


def raw_grid() -> np.ndarray:
    """Return a YOLOX grid whose cell of stride 8 in column 4, line 5 holds OBJECT."""
    table = np.concatenate([np.full((84, 2), 0.5), np.zeros((84, 2)), np.full((84, 3), 0.01)], axis=1)
    table[5 * 8 + 4] = 0.0, 0.0, np.log(3), np.log(3), 0.9, 0.05, 1.0
    return table


def layouts() -> dict[str, tuple[Tables, set[str]]]:
    """Return the outputs of models by their layout, and the decoders that read these outputs without settings."""
    boxes, scores = faint()
    sure, centres = np.ones((84, 1)), centred(boxes)
    logits = np.log(scores / (1 - scores))
    rows = np.concatenate([boxes, scores.max(axis=1, keepdims=True), scores.argmax(axis=1)[:, None]], axis=1)
    return {
        "yolox": ({"y": raw_grid()}, {"yolox"}),
        "yolov5": ({"y": np.concatenate([centres, sure, scores], axis=1)}, {"yolov5"}),
        "yolov8": ({"y": np.concatenate([centres, scores], axis=1).T}, {"yolov8"}),
        "corners": ({"s": scores, "b": boxes / SIZE}, {"corners", "ssd"}),
        "corners in px": ({"s": scores, "b": boxes}, set()),
        "rtdetr": ({"l": logits, "b": centres / SIZE}, {"rtdetr"}),
        "rtdetr in one output": ({"y": np.concatenate([centres / SIZE, scores], axis=1)}, {"rtdetr"}),
        "ssd offsets": ({"s": scores, "b": centres / SIZE - 0.5}, set()),
        "end2end": ({"y": rows}, {"end2end"}),
        "end2end in shares": ({"y": np.concatenate([boxes / SIZE, rows[:, 4:]], axis=1)}, set()),
        "end2end in parts": ({"n": np.array([1]), "b": boxes, "s": rows[:, 4], "c": rows[:, 5]}, {"end2end"}),
    }


LAYOUTS = layouts()
PAIRS = list(itertools.product(LAYOUTS, sorted(set(decoders.known()) - decoders.SECOND_STAGE)))


def add(folder: Path, tables: Tables, decoder: str, **settings: Any) -> Model:
    file = constant_model(folder / "m.onnx", tables)
    options = AdoptOptions("m", decoder, LABELS, decoding=Decoding(settings=settings))
    return adopt(file, Repository(folder / "models"), options)


@pytest.mark.parametrize(("layout", "decoder"), PAIRS)
def test_the_right_decoder_of_a_model_finds_its_object_and_a_wrong_decoder_is_refused(
    tmp_path: Path, layout: str, decoder: str
) -> None:
    tables, right = LAYOUTS[layout]
    if decoder in right:
        (found,) = detections(add(tmp_path, tables, decoder), BLACK)
        assert (found.label, found.score) == ("person", pytest.approx(0.9))
        np.testing.assert_allclose(found.box, OBJECT, atol=1e-3)
        return
    with pytest.raises(AdoptFailed, match=f"decoder {decoder}: .+: expected ") as refused:
        add(tmp_path, tables, decoder)
    for name in right:
        assert name in str(refused.value).partition("Decoders that can read these outputs: ")[2]


@pytest.mark.parametrize("layout", sorted(LAYOUTS.keys() - {"ssd offsets"}))
def test_the_inspection_of_a_model_chooses_the_right_decoder_and_its_settings(tmp_path: Path, layout: str) -> None:
    tables, right = LAYOUTS[layout]
    file = constant_model(tmp_path / "m.onnx", tables)
    report = examined(file, "m", Overrides(labels=LABELS), tmp_path / "models")
    settings = {"corners in px": {"unit": "px"}, "end2end in shares": {"unit": "share"}}.get(layout, {})
    model = Repository(tmp_path / "models").open("m", 1)
    assert model.manifest.decoder in (right or {layout.partition(" ")[0]}), report.rejected
    assert model.manifest.decoding == Decoding(settings=settings)
    (found,) = detections(model, BLACK)
    assert (found.label, found.score) == ("person", pytest.approx(0.9))
    np.testing.assert_allclose(found.box, OBJECT, atol=1e-3)


@pytest.mark.parametrize(
    ("layout", "decoder", "cure", "settings"),
    [
        ("corners in px", "corners", "Set unit = px", {"unit": "px"}),
        ("end2end in shares", "end2end", "Set unit = share", {"unit": "share"}),
        ("ssd offsets", "corners", "ssd for offsets", None),
        ("rtdetr", "ssd", "Set scores = softmax or scores = sigmoid", {"form": "centres", "scores": "sigmoid"}),
    ],
)
def test_the_error_for_a_wrong_decoder_setting_names_the_right_setting(
    tmp_path: Path, layout: str, decoder: str, cure: str, settings: dict[str, str] | None
) -> None:
    tables, _ = LAYOUTS[layout]
    with pytest.raises(AdoptFailed, match=cure):
        add(tmp_path, tables, decoder)
    if settings is not None:
        (found,) = detections(add(tmp_path, tables, decoder, **settings), BLACK)
        np.testing.assert_allclose(found.box, OBJECT, atol=1e-3)


def test_a_model_with_box_offsets_as_outputs_is_served_with_the_prior_boxes_of_its_manifest(tmp_path: Path) -> None:
    offsets, scores = np.zeros((16 + 4, 4)), np.full((20, 2), 0.01)
    offsets[1 + 16], scores[1 + 16] = (-0.4, 0.4, 5 * np.log(2), 0.0), (0.05, 0.9)
    priors = {"16": [10], "32": [[8, 20]]}
    model = add(tmp_path, {"s": scores, "b": offsets}, "ssd", form="offsets", priors=priors)
    (found,) = detections(model, BLACK)
    x, y = 48 - 0.04 * 8, 16 + 0.04 * 20
    np.testing.assert_allclose(found.box, (x - 8, y - 10, x + 8, y + 10), atol=1e-3)
    with pytest.raises(ManifestError, match=r"priors = \{\}: expected the sizes of the prior boxes"):
        add(tmp_path, {"s": scores, "b": offsets}, "ssd", form="offsets")
    with pytest.raises(AdoptFailed, match="has 20 boxes: expected 16, one for each prior box"):
        add(tmp_path, {"s": scores, "b": offsets}, "ssd", form="offsets", priors={"16": [10]})
    boxes, some = faint()
    with pytest.raises(AdoptFailed, match="The model has decoded them: set form = corners"):
        add(tmp_path, {"s": some[:20], "b": boxes[:20] / SIZE}, "ssd", form="offsets", priors=priors)


def test_model_outputs_with_more_classes_than_labels_are_refused(tmp_path: Path) -> None:
    rows = np.array([[20, 28, 44, 52, 0.9, 7], [20, 28, 44, 52, 0.0, -1]])
    with pytest.raises(AdoptFailed, match=r"class column has 7: expected numbers below 2.*at least 8 lines"):
        add(tmp_path, {"y": rows}, "end2end")


@pytest.mark.parametrize("decoder", ["yolov5", "yolov8", "rtdetr"])
def test_a_wrong_number_of_labels_is_refused_with_the_number_of_classes(tmp_path: Path, decoder: str) -> None:
    boxes = np.concatenate([centred(faint()[0]), np.full((84, 5), 0.01)], axis=1)
    boxes = np.tile(boxes, (13, 1)) if decoder == "yolov5" else boxes
    count = {"yolov5": 4, "yolov8": 5, "rtdetr": 5}[decoder]
    with pytest.raises(AdoptFailed, match=f"has {count} classes: pass a --labels file with {count} lines"):
        add(tmp_path, {"y": boxes.T if decoder == "yolov8" else boxes}, decoder)


@pytest.mark.parametrize("decoder", ["yolov5", "yolov8"])
def test_model_outputs_with_boxes_of_negative_width_are_refused(tmp_path: Path, decoder: str) -> None:
    table = LAYOUTS[decoder][0]["y"].copy()
    (table if decoder == "yolov5" else table.T)[3, 2] = -1.5
    with pytest.raises(AdoptFailed, match=r"widths and heights go down to -1\.5: expected 0 or more"):
        add(tmp_path, {"y": table}, decoder)


def test_the_user_sets_how_boxes_are_merged_and_the_inspection_of_the_model_finds_the_box_unit(
    tmp_path: Path,
) -> None:
    file = constant_model(tmp_path / "m.onnx", LAYOUTS["corners in px"][0])
    merging = {"max_overlap": 0.3, "across_classes": True}
    examined(file, "m", Overrides(labels=LABELS, decoding=merging), tmp_path / "models")
    found = Repository(tmp_path / "models").open("m", 1).manifest.decoding
    assert found == Decoding(max_overlap=0.3, across_classes=True, settings={"unit": "px"})
    with pytest.raises(ManifestError, match="setting max_overlap = 2: Input should be less than or equal to 1"):
        examined(file, "m", Overrides(labels=LABELS, decoding={"max_overlap": 2}), tmp_path / "models")


def test_boxes_of_different_classes_are_merged_if_the_setting_across_classes_is_true(tmp_path: Path) -> None:
    boxes, scores = faint()
    boxes[1], scores[1] = (21, 28, 44, 52), (0.8, 0.0)
    file = constant_model(tmp_path / "m.onnx", {"s": scores, "b": boxes / SIZE})
    for across, expected in ((False, ["person", "car"]), (True, ["person"])):
        options = AdoptOptions("m", "corners", LABELS, decoding=Decoding(across_classes=across))
        found = detections(adopt(file, Repository(tmp_path / "models"), options), BLACK)
        assert [d.label for d in found] == expected
