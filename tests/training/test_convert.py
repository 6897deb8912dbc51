"""Tests of `sightline models add` for Keras files and TensorFlow SavedModels, and of the error without the extra."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from deploy.cli.app import app
from deploy.cli.common import USAGE_EXIT
from engines import backends
from engines.exceptions import AdoptFailed
from engines.repository.adopt import KERAS_FILE
from engines.repository.store import Repository
from training.convert import guard
from training.convert.formats import converted

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword"),
]
"""TensorFlow 2.21 does not have the signature that NumPy 2 expects."""
SIZE = 24


@pytest.fixture(autouse=True)
def _repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGHTLINE_MODELS", str(tmp_path / "models"))


def add(*words: str | Path) -> Any:
    """Return the report of `models add`."""
    result = CliRunner().invoke(app, ["models", "add", *map(str, words), "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def refused(*words: str | Path) -> str:
    result = CliRunner().invoke(app, ["models", "add", *map(str, words)])
    assert result.exit_code == USAGE_EXIT, result.output
    (line,) = result.output.splitlines()
    return line


def network() -> Any:
    """Return a small classifier for float pictures in NHWC, with a depthwise convolution and a sum."""
    keras = pytest.importorskip("keras")
    keras.utils.set_random_seed(3)
    layers = keras.layers
    inputs = keras.Input((SIZE, SIZE, 3))
    top = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(16, 3, strides=2, padding="same")(inputs)))
    inner = layers.DepthwiseConv2D(3, padding="same", activation="relu")(top)
    top = layers.Add()([layers.Conv2D(16, 1)(inner), top])
    top = layers.GlobalAveragePooling2D()(top)
    return keras.Model(inputs, layers.Dense(5, activation="softmax", name="probabilities")(top))


def served(name: str, pixels: np.ndarray) -> np.ndarray:
    """Return the output of a stored model."""
    engine = backends.make("onnxruntime")
    engine.load(Repository(Path(os.environ["SIGHTLINE_MODELS"])).open(name))
    (found,) = engine.infer(pixels).values()
    engine.close()
    return found


@pytest.mark.parametrize("name", ["m.keras", "m"])
def test_the_error_for_missing_keras_names_the_extra_to_install(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "find_spec", lambda module: None)
    path = tmp_path / name
    if path.suffix:
        path.write_bytes(b"keras")
    else:
        path.mkdir()
        (path / "saved_model.pb").write_bytes(b"model")
    line = refused(path)
    assert "modules keras, tensorflow, tf2onnx are missing. Install the extra train" in line
    assert "pip install 'sightline[train]'" in line


def test_a_folder_that_is_no_tensorflow_savedmodel_is_refused(tmp_path: Path) -> None:
    assert "expected an ONNX file, a .keras file, or a SavedModel folder" in refused(tmp_path, "m")


def test_the_hash_of_a_model_folder_covers_file_names_and_contents(tmp_path: Path) -> None:
    hashes = set()
    for name, content in (("a", b"1"), ("a", b"2"), ("b", b"2")):
        folder = tmp_path / f"{name}{content.decode()}"
        folder.mkdir()
        (folder / name).write_bytes(content)
        hashes.add(guard.sha256_of_all(folder))
    assert len(hashes) == 3


@pytest.mark.train
def test_a_keras_file_is_converted_compared_and_stored_with_its_original(tmp_path: Path) -> None:
    model, file = network(), tmp_path / "m.keras"
    model.save(file)
    report = add(file, "keras", "--labels", "a,b,c,d,e")
    assert (report["model"], report["layout"], report["file"]) == ("keras@1", "nhwc", str(file))
    stored = Repository(tmp_path / "models").open("keras")
    origin = stored.manifest.origin
    assert (origin["file"], origin["sha256"]) == ("m.keras", guard.sha256_of_all(file))
    assert origin["converter"].startswith("tf2onnx")
    assert origin["conversion_difference"] < 1e-3
    assert (stored.folder / KERAS_FILE).read_bytes() == file.read_bytes()
    pixels = np.random.default_rng(0).integers(0, 256, (4, SIZE, SIZE, 3), np.uint8)
    floats = (pixels.astype(np.float32) - origin["mean"]) * origin["scale"]
    np.testing.assert_allclose(served("keras", pixels), model.predict(floats, verbose=0), atol=1e-4)


@pytest.mark.train
def test_a_saved_model_is_converted_and_compared(tmp_path: Path) -> None:
    model = network()
    model.export(str(tmp_path / "saved"), verbose=False)
    report = add(tmp_path / "saved", "saved")
    assert (report["model"], report["layout"]) == ("saved@1", "nhwc")
    stored = Repository(tmp_path / "models").open("saved")
    assert not (stored.folder / KERAS_FILE).exists()
    assert stored.manifest.origin["sha256"] == guard.sha256_of_all(tmp_path / "saved")


@pytest.mark.train
def test_a_tensorflow_detector_gets_its_decoder_settings_from_the_names_of_its_outputs(tmp_path: Path) -> None:
    tf = pytest.importorskip("tensorflow")

    class Detector(tf.Module):  # type: ignore[misc,name-defined]
        @tf.function(input_signature=[tf.TensorSpec((1, SIZE, SIZE, 3), tf.uint8, name="input_tensor")])
        def detect(self, images: Any) -> dict[str, Any]:
            zero = tf.reduce_mean(tf.cast(images, tf.float32)) * 0.0
            boxes = tf.constant([[[0.25, 0.5, 0.5, 1.0], [0.0, 0.0, 0.1, 0.1]]])
            return {
                "detection_anchor_indices": tf.constant([[3.0, 4.0]]) + zero,
                "detection_boxes": boxes + zero,
                "detection_classes": tf.constant([[2.0, 1.0]]) + zero,
                "detection_scores": tf.constant([[0.9, 0.1]]) + zero,
                "num_detections": tf.constant([2.0]) + zero,
                "raw_detection_boxes": tf.tile(boxes, [1, 5, 1]) + zero,
                "raw_detection_scores": tf.ones((1, 10, 3)) * 0.1 + zero,
            }

    detector = Detector()
    tf.saved_model.save(detector, str(tmp_path / "ssd"), signatures={"serving_default": detector.detect})
    report = add(tmp_path / "ssd", "ssd", "--labels", "car,person")
    settings = {one["key"]: one for one in report["settings"]}
    assert settings["decoder"]["value"] == "end2end"
    assert settings["decoding"]["value"]["settings"] == {"unit": "share", "order": "top-left", "first_class": 1}
    assert (settings["decoding"]["source"], settings["decoding"]["reason"]) == ("file", "the names of the outputs")
    assert [output["name"] for output in report["outputs"]] == [
        "num_detections",
        "detection_boxes",
        "detection_classes",
        "detection_scores",
    ]


@pytest.mark.train
def test_a_keras_file_with_python_code_inside_is_refused(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    inputs = keras.Input((SIZE, SIZE, 3))
    model = keras.Model(inputs, keras.layers.Lambda(lambda x: x + 1, output_shape=(SIZE, SIZE, 3))(inputs))
    model.save(tmp_path / "m.keras")
    with pytest.raises(AdoptFailed, match="expected a model that Keras can load"):
        converted(tmp_path / "m.keras", tmp_path / "m.onnx", None)


@pytest.mark.train
def test_a_saved_model_that_reads_files_is_refused_before_it_is_loaded(tmp_path: Path) -> None:
    tf = pytest.importorskip("tensorflow")

    class Reader(tf.Module):  # type: ignore[misc,name-defined]
        @tf.function(input_signature=[tf.TensorSpec((1, SIZE, SIZE, 3), tf.float32)])
        def read(self, images: Any) -> dict[str, Any]:
            return {"y": tf.reduce_mean(images) + tf.strings.to_number(tf.io.read_file("/etc/hostname"))}

    reader = Reader()
    tf.saved_model.save(reader, str(tmp_path / "reader"), signatures={"serving_default": reader.read})
    with pytest.raises(AdoptFailed, match="operators ReadFile run code or use files"):
        converted(tmp_path / "reader", tmp_path / "m.onnx", None)
