"""Tests of `sightline train classifier` with Keras: kill and resume, workers, export, report and errors."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from deploy.cli.app import app
from deploy.cli.common import USAGE_EXIT
from engines.repository.adopt import KERAS_FILE
from engines.repository.store import Repository
from tests.e2e.test_docs import table_of
from tests.paths import ROOT
from tests.shell import blocks, run_commands
from training.classify import checkpoint
from training.classify.drawn import animals
from training.classify.export import TOLERANCE

pytestmark = [
    pytest.mark.train,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword"),
]
EPOCHS, PICTURES = 12, 200
KILL_AT = 13
"""Number of batches after which a training is killed. An epoch has eight batches."""
SETTINGS = ("--network", "28x28", "--epochs", str(EPOCHS), "--batch", "32", "--out", "pets")
KILLED = f"""
import os, signal, sys
import deploy.cli.training.classifier as command
from contextlib import contextmanager
from deploy.cli.app import main

left = [{KILL_AT}]

def advance():
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)

@contextmanager
def step_progress():
    yield lambda title, total: advance if title == "training" else lambda: None

command.step_progress = step_progress
main()
"""
"""Runs a command, and kills its own process after a batch of the training."""


def train(*words: str | Path) -> Any:
    """Return the result of `train classifier`."""
    pytest.importorskip("keras")
    return CliRunner().invoke(app, ["train", "classifier", *map(str, words)])


def refused(*words: str | Path) -> str:
    result = train(*words)
    assert result.exit_code == USAGE_EXIT, result.output
    return str(result.stderr.splitlines()[-1])


def draw(folder: Path, pictures: int = PICTURES) -> Path:
    """Write drawn pictures of cats and dogs."""
    for one in animals(pictures, 28, True, 0):
        (folder / one.label).mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(folder / one.label / f"{one.number}.png"), one.image)
    return folder


def weights(models: Path, name: str = "pets") -> list[np.ndarray]:
    """Return the weights of a stored model."""
    keras = pytest.importorskip("keras")
    model = keras.saving.load_model(str(Repository(models).open(name).folder / KERAS_FILE), compile=False)
    return [np.asarray(values) for values in model.get_weights()]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with pictures, some of them damaged, and with a model that was trained without a kill."""
    folder = tmp_path_factory.mktemp("classifier")
    data = draw(folder / "data")
    (data / "cat" / "damaged.jpg").write_bytes(b"text")
    (data / "datasheet.md").write_text("# Drawn animals\n")
    result = train(data, *SETTINGS, "--models", folder / "models", "--run", folder / "run", "--json")
    assert result.exit_code == 0, result.output
    (folder / "out.json").write_text(result.stdout)
    (folder / "err.txt").write_text(result.stderr)
    return folder


def test_a_killed_training_resumes_to_the_same_weights(place: Path, tmp_path: Path) -> None:
    options = [*SETTINGS, "--models", str(tmp_path / "models"), "--run", str(tmp_path / "run"), "--checkpoint-s", "0"]
    words = ["train", "classifier", str(place / "data"), *options]
    killed = subprocess.run([sys.executable, "-c", KILLED, *words], capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (tmp_path / "models").exists()
    state = checkpoint.load(tmp_path / "run")
    assert state is not None
    assert (state.progress.epoch, state.progress.step) == (1, 4)
    assert "--resume to go on at epoch 2" in refused(*words[2:])
    assert "seed = 5: expected 0, as in the unfinished training" in refused(*words[2:], "--seed", "5", "--resume")
    result = train(*words[2:], "--resume")
    assert result.exit_code == 0, result.output
    assert "resumed at epoch 2, batch 5" in result.stderr
    resumed, undisturbed = weights(tmp_path / "models"), weights(place / "models")
    assert all(np.array_equal(a, b) for a, b in zip(resumed, undisturbed, strict=True))
    first, second = (Repository(p / "models").open("pets").manifest.training for p in (place, tmp_path))
    assert first["history"] == second["history"]
    assert first["confusion"] == second["confusion"]


def test_the_stored_model_has_its_measured_accuracy_and_equals_the_keras_model(place: Path) -> None:
    found = json.loads((place / "out.json").read_text())
    stored = Repository(place / "models").open("pets")
    manifest = stored.manifest
    assert (manifest.decoder, manifest.labels, manifest.input.width) == ("binary", ("cat", "dog"), 28)
    assert manifest.training["accuracy"] == found["accuracy"] > 0.6
    assert manifest.training["train_pictures"] + manifest.training["test_pictures"] < 2 * PICTURES
    assert manifest.origin["conversion_difference"] <= TOLERANCE
    documented = {key.strip(" `") for row in table_of("models.md", "Training") for key in row[0].split(",")}
    not_given = {"size", "colour", "normalisation", "dropout"}
    assert documented - not_given == set(manifest.training)
    assert "damaged.jpg: not a picture" in (place / "err.txt").read_text()
    assert not (place / "run" / checkpoint.CHECKPOINT).exists()


def test_the_training_report_is_one_file_with_all_measures(place: Path) -> None:
    page = (place / "run" / "report.html").read_text()
    for heading in ("Confusion matrix", "Precision and recall", "Worst mistakes", "Skipped files", "Training"):
        assert f">{heading}</h" in page
    assert "Expected calibration error" in page
    assert page.count("<polyline") == 4
    assert page.count("data:image/png;base64,") == json.loads((place / "out.json").read_text())["mistakes"]
    links = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert [link for link in links if not link.startswith("data:")] == [(place / "data/datasheet.md").as_uri()]


def test_tensorflow_reads_the_validation_losses_from_the_tensorboard_file_of_a_training(place: Path) -> None:
    tf = pytest.importorskip("tensorflow")
    from tensorflow.core.util.event_pb2 import Event

    (file,) = (place / "run" / "logs" / "validation").iterdir()
    events = [Event.FromString(one.numpy()) for one in tf.data.TFRecordDataset(str(file))]
    assert events[0].file_version == "brain.Event:2"
    assert [event.step for event in events[1:]] == list(range(1, EPOCHS + 1))
    history = Repository(place / "models").open("pets").manifest.training["history"]
    losses = [event.summary.value[0].simple_value for event in events[1:]]
    assert losses == pytest.approx(history["validation_loss"], abs=1e-5)


def test_the_training_report_has_one_table_of_the_original_the_quantised_and_the_pruned_model(
    place: Path, tmp_path: Path
) -> None:
    words = [
        "--calibrate",
        str(draw(tmp_path / "pictures", 40)),
        "--models",
        str(place / "models"),
        "--max-loss",
        "0.5",
    ]
    fast = ["--seconds", "0", "--backend", "onnxruntime"]
    for form in (["--precision", "int8", "--form", "u8s8"], ["--prune", "0.5", "--epochs", "1"]):
        result = CliRunner().invoke(app, ["models", "optimise", "pets", *form, *words, *fast])
        assert result.exit_code == 0, result.output
    names = ("pets", "pets-int8-u8s8", "pets-pruned")
    options = ["--data", str(place / "data"), "--models", str(place / "models"), "--out", str(tmp_path / "r.html")]
    result = CliRunner().invoke(app, ["models", "evaluate", *names, *options, "--seconds", "0.1", "--json"])
    assert result.exit_code == 0, result.output
    original, quantised, pruned = json.loads(result.stdout)
    assert original["accuracy"] == json.loads((place / "out.json").read_text())["accuracy"]
    assert [one["made_by"] for one in (original, quantised, pruned)] == ["", "int8 (u8s8)", "pruned"]
    assert quantised["size_bytes"] < 0.5 * original["size_bytes"]
    assert pruned["size_bytes"] < 0.5 * original["size_bytes"]
    documented = {key.strip(" `") for row in table_of("models.md", "Evaluated") for key in row[0].split(",")}
    assert documented == set(original)
    assert all(one["single_ms"] > 0 for one in (original, quantised, pruned))
    page = (tmp_path / "r.html").read_text()
    assert all(f"<h2>{name}@1</h2>" in page for name in names)


def free_ports(count: int) -> list[int]:
    """Return ports of this machine that no process uses."""
    with ExitStack() as stack:
        taken = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in taken:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in taken]


def test_two_workers_and_two_devices_train_to_nearly_the_same_losses_as_one_device(
    tmp_path: Path, home: Path
) -> None:
    pytest.importorskip("keras")
    commands = "\n".join(blocks(ROOT / "docs" / "how-to" / "train.md"))
    for written, port in zip(("23711", "23712"), free_ports(2), strict=True):
        assert written in commands
        commands = commands.replace(written, str(port))
    said = run_commands(commands, tmp_path, home, timeout_s=400)
    assert "the first worker of TF_CONFIG stores the model" in said
    repository = Repository(tmp_path / "models")
    one, two, mirrored = (repository.open(name).manifest.training for name in ("one", "two", "mirrored"))
    assert [found["strategy"] for found in (one, two, mirrored)] == ["none", "multi-worker", "mirrored"]
    for found in (two, mirrored):
        assert found["history"]["loss"] == pytest.approx(one["history"]["loss"], rel=2e-3)


def test_a_keras_file_serves_as_a_frozen_backbone(place: Path, tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    inputs = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(8, 3, strides=2, activation="relu", name="first")(inputs)
    x = keras.layers.Dense(10, name="old")(keras.layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, keras.layers.Softmax()(x))
    model.save(tmp_path / "backbone.keras")
    words = [place / "data", "--out", "tuned", "--models", tmp_path / "models", "--run", tmp_path / "run"]
    words += ["--network", str(tmp_path / "backbone.keras"), "--size", "24x20", "--epochs", "1", "--freeze"]
    result = train(*words)
    assert result.exit_code == 0, result.output
    manifest = Repository(tmp_path / "models").open("tuned").manifest
    assert (manifest.decoder, manifest.input.width, manifest.input.height) == ("softmax", 24, 20)
    assert (manifest.input.colour, manifest.origin["mean"]) == ("rgb", [127.5] * 3)
    kernel = weights(tmp_path / "models", "tuned")[0]
    assert [values.shape[-1] for values in weights(tmp_path / "models", "tuned")] == [8, 8, 2, 2]
    assert np.array_equal(kernel, np.asarray(model.get_layer("first").kernel))


def test_wrong_sizes_labels_batches_and_networks_are_refused_by_the_training(place: Path, tmp_path: Path) -> None:
    data, options = place / "data", ["--out", "x", "--models", tmp_path / "m", "--run", tmp_path / "run"]
    assert "--size = '4x4': expected width and height from 8 to 1024 px" in refused(data, *options, "--size", "4x4")
    classic = refused(data, *options, "--network", "28x28", "--size", "32x32")
    assert "expected 28x28 for --network 28x28, or --network small-cnn" in classic
    assert "expected small-cnn, 28x28, or a .keras file that exists" in refused(data, *options, "--network", "vgg")
    (tmp_path / "no.keras").write_bytes(b"text")
    assert "expected a model that Keras can load" in refused(data, *options, "--network", tmp_path / "no.keras")
    assert "--freeze = 'small-cnn': expected a backbone" in refused(data, *options, "--freeze")
    (tmp_path / "three" / "bird").mkdir(parents=True)
    for label in ("cat", "dog"):
        (tmp_path / "three" / label).symlink_to(data / label)
    three = refused(tmp_path / "three", *options, "--network", "28x28")
    assert "two labels for one sigmoid unit, found 3. Use small-cnn" in three
    assert "at least one usable picture of 'bird' for train" in refused(tmp_path / "three", *options)
    assert "TF_CONFIG" in refused(data, *options, "--strategy", "multi-worker")
