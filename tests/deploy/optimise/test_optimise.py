"""Tests of `sightline models optimise`: the stored versions, the comparison, the bound, and the errors."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from onnx import numpy_helper
from typer.testing import CliRunner

from deploy.cli.app import app
from deploy.cli.common import USAGE_EXIT
from deploy.optimise import run
from engines.backends.auto import BackendChoice
from engines.backends.fake import FakeEngine
from engines.exceptions import ModelLoadFailed
from engines.repository.adopt import KERAS_FILE, MODEL_FILE
from engines.repository.manifest import Model
from engines.repository.store import Repository
from tests.engines.optimise import networks
from tests.paths import MODELS
from training.convert import guard

LABELS = ("a", "b", "c", "d")
FAST = ("--seconds", "0", "--backend", "onnxruntime")


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of pictures in folders by class: the class that the network gives them."""
    folder = tmp_path_factory.mktemp("pictures")
    images = networks.pictures(48)
    (scores,) = networks.run(networks.residual_classifier(), images)
    for index, (image, best) in enumerate(zip(images, scores.argmax(axis=1), strict=True)):
        (folder / LABELS[best]).mkdir(exist_ok=True)
        cv2.imwrite(str(folder / LABELS[best] / f"{index}.png"), image)
    return folder


@pytest.fixture(autouse=True)
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """Return a repository with the residual classifier, and name it in the environment."""
    monkeypatch.setenv("SIGHTLINE_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("COLUMNS", "200")
    manifest = {
        "name": "small",
        "file": MODEL_FILE,
        "decoder": "softmax",
        "labels": list(LABELS),
        "max_batch": 8,
        "input": {"name": "pixels", "width": networks.SIZE, "height": networks.SIZE},
        "origin": {"file": "small.onnx"},
    }
    found = Repository(tmp_path / "models")
    found.write("small", manifest, {MODEL_FILE: networks.residual_classifier().SerializeToString()})
    return found


def optimise(*words: str | Path, status: int = 0) -> str:
    """Return the output of the command, which ends with this status."""
    result = CliRunner().invoke(app, ["models", "optimise", "small", *map(str, words), *FAST])
    assert result.exit_code == status, result.output
    return result.stdout


def report(*words: str | Path, status: int = 0) -> Any:
    return json.loads(optimise(*words, "--json", status=status))


def refused(*words: str | Path) -> str:
    """Return the only line of output of a command that fails with a usage error."""
    result = CliRunner().invoke(app, ["models", "optimise", *map(str, words)])
    assert result.exit_code == USAGE_EXIT, result.output
    (line,) = result.output.splitlines()
    return line


def test_an_int8_model_is_stored_for_onnx_runtime_and_for_tensorrt_with_origin_and_accuracy(
    labelled: Path, repository: Repository
) -> None:
    found = report("--precision", "int8", "--calibrate", labelled, "--max-loss", "0.1")
    assert (found["original"], found["calibration_pictures"], found["test_pictures"]) == ("small@1", 24, 24)
    assert [one["model"] for one in found["versions"]] == ["small-int8-u8s8@1", "small-int8-s8s8@1"]
    for one in found["versions"]:
        assert (one["quality"]["measure"], one["quality"]["original"]) == ("accuracy", 1.0)
        assert one["quality"]["loss"] <= 0.1
        assert {row["batch"] for row in one["speed"]} == {1, 8}
        manifest = repository.open(one["model"]).manifest
        assert (manifest.precision, manifest.labels) == ("int8", LABELS)
        made = manifest.origin["optimised"]
        assert (made["model"], made["form"], made["calibration_pictures"]) == ("small@1", one["form"], 24)
        assert manifest.origin["file"] == "small.onnx"


def test_an_fp16_model_is_compared_by_agreement_if_pictures_have_no_labels(
    labelled: Path, repository: Repository
) -> None:
    for picture in (labelled / "a").iterdir():
        (repository.root.parent / picture.name).write_bytes(picture.read_bytes())
    output = optimise("--precision", "fp16", "--calibrate", repository.root.parent)
    assert "agreement on" in output
    assert "small-fp16@1 stored in" in output
    assert "expected 50 or more for a sure figure" in output
    assert repository.open("small-fp16").manifest.precision == "fp16"


def test_an_optimised_model_is_stored_only_if_its_accuracy_loss_is_within_the_bound(
    labelled: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(model: Any) -> Any:
        (dense,) = [w for w in model.graph.initializer if list(w.dims) == [networks.CLASSES, 16]]
        dense.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(dense), dense.name))
        return model

    monkeypatch.setattr(run, "halved", broken)
    words = ("--precision", "fp16", "--calibrate", labelled)
    assert "Not stored: accuracy falls by" in optimise(*words, status=1)
    assert repository.names() == ["small"]
    loss = report(*words, status=1)["versions"][0]["quality"]["loss"]
    assert loss > 0
    assert "small-fp16@1 stored in" in optimise(*words, "--max-loss", str(loss))


def test_an_optimised_model_is_not_stored_if_it_loses_accuracy_on_the_backend_that_would_serve_it(
    labelled: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("--precision", "fp16", "--calibrate", labelled)
    chosen = BackendChoice("fake", "its outputs depend on one pixel", {})
    monkeypatch.setattr(run.backends, "choose_cpu_here", lambda precision: chosen)
    assert "Not stored: accuracy falls by" in optimise(*words, status=1)
    assert repository.names() == ["small"]


def test_an_optimised_model_that_the_backend_which_would_serve_it_cannot_load_is_refused(
    labelled: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(engine: FakeEngine, model: Model) -> None:
        raise ModelLoadFailed("unsupported operator")

    monkeypatch.setattr(FakeEngine, "_load_impl", refuse)
    monkeypatch.setattr(run.backends, "choose_cpu_here", lambda precision: BackendChoice("fake", "", {}))
    line = refused("small", "--precision", "fp16", "--calibrate", labelled)
    assert "the optimised model cannot be used: unsupported operator" in line
    assert repository.names() == ["small"]


def test_an_optimised_version_of_the_same_name_is_not_served_before_it_is_promoted(
    labelled: Path, repository: Repository
) -> None:
    found = report("--precision", "fp16", "--calibrate", labelled, "--name", "small")
    assert found["versions"][0]["model"] == "small@2"
    assert repository.promoted("small") == 1


def test_pictures_of_the_test_folder_are_not_used_for_int8_calibration(labelled: Path) -> None:
    found = report(
        *("--precision", "int8", "--form", "u8s8", "--calibrate", labelled / "a", "--test", labelled),
        *("--max-loss", "1", "--name", "tiny"),
    )
    assert found["test_pictures"] == 48
    assert found["calibration_pictures"] == len(list((labelled / "a").iterdir()))
    assert found["versions"][0]["model"] == "tiny@1"


def test_a_model_of_embeddings_is_not_optimised_because_its_loss_is_not_measured(
    labelled: Path, repository: Repository
) -> None:
    shutil.copytree(MODELS / "appearance", repository.root / "appearance")
    said = refused("appearance", "--precision", "fp16", "--calibrate", labelled)
    assert "appearance@1 has decoder embedding: expected a model that finds or labels objects" in said


def test_the_error_for_an_unusable_argument_of_models_optimise_names_the_option(
    labelled: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    int8 = ("small", "--precision", "int8")
    assert "--calibrate = '': expected a folder of pictures, or --from-log N" in refused(*int8)
    assert "no --from-log, because --calibrate is given" in refused(*int8, "--calibrate", labelled, "--from-log", "5")
    assert "expected a folder with JPEG" in refused(*int8, "--calibrate", tmp_path / "empty")
    assert "--form = 's4s4': expected one of u8s8, s8s8" in refused(*int8, "--form", "s4s4")
    assert "--backend = 'abacus'" in refused(*int8, "--backend", "abacus")
    assert "--name = 'Über'" in refused(*int8, "--name", "Über")
    assert "nothing to do: expected --precision fp16 or int8, or --prune" in refused("small", "--calibrate", labelled)
    assert "has no model 'cars'" in refused("cars", "--precision", "fp16")
    for name in ("x", "y"):
        (tmp_path / "mixed" / name).mkdir(parents=True)
    (tmp_path / "mixed" / "x").rename(tmp_path / "mixed" / "a")
    for name in ("a", "y"):
        cv2.imwrite(str(tmp_path / "mixed" / name / "1.png"), np.zeros((4, 4, 3), np.uint8))
    assert "each picture in a folder with the name of a label: a, b, c, d" in refused(
        *int8, "--calibrate", tmp_path / "mixed"
    )


def test_a_model_without_its_keras_file_cannot_be_pruned(labelled: Path) -> None:
    assert "model small@1 has no Keras file: a pruned model must be trained" in refused(
        "small", "--prune", "0.5", "--calibrate", labelled
    )


def test_the_error_for_pruning_without_keras_names_the_extra_to_install(
    labelled: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "find_spec", lambda name: None)
    (repository.root / "small" / "1" / KERAS_FILE).write_bytes(b"keras")
    error = refused("small", "--prune", "0.5", "--calibrate", labelled)
    assert "modules keras, tensorflow, tf2onnx are missing. Install the extra train" in error
    assert "pip install 'sightline[train]'" in error
