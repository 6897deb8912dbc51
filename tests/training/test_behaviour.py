"""Tests of the simulated tracks of people, and of the training of a behaviour model if the extra is installed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from deploy.cli.app import app
from engines.repository.store import Repository
from stream.analyse.behaviour.history import MIN_SEEN_S
from stream.analyse.behaviour.model import behaviour_model
from stream.analyse.behaviour.window import windows
from tests.paths import MODELS
from training.behaviour.people import BEHAVIOURS, SETTLED_S, WALKING
from training.behaviour.tracks import UNSETTLED, examples, simulated_track, tracks


def test_a_seed_always_gives_the_same_simulated_tracks_and_another_seed_other_tracks() -> None:
    one, same, other = (examples(seed, 8, per_track=2) for seed in (1, 1, 2))
    assert np.array_equal(one.windows, same.windows)
    assert not np.array_equal(one.windows, other.windows)


def test_simulated_tracks_are_in_order_of_time_and_their_last_position_has_the_simulated_behaviour() -> None:
    for number, track in enumerate(tracks(3, 24)):
        assert (np.diff(track.boxes[:, 0]) > 0.0).all()
        assert (track.boxes[:, 1] < track.boxes[:, 3]).all()
        assert (track.boxes[:, 2] < track.boxes[:, 4]).all()
        assert track.behaviours[-1] == number % len(BEHAVIOURS)
        assert track.behaviours[0] == UNSETTLED


def test_the_behaviour_rule_ignores_tracks_that_are_too_short_to_be_labelled_in_training() -> None:
    assert max(SETTLED_S) <= MIN_SEEN_S


def test_the_shipped_behaviour_model_seldom_classifies_walking_people_as_running_at_the_minimum_track_length(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SIGHTLINE_MODELS", str(MODELS))
    model, found = behaviour_model("behaviour@1"), []
    for seed in range(80):
        track = simulated_track(np.random.default_rng([11, seed]), [(WALKING, 6.0)])
        judged = np.flatnonzero(track.boxes[:, 0] - track.boxes[0, 0] >= MIN_SEEN_S)
        if len(judged):
            found.append(windows([track.boxes[: judged[0] + 1]], track.width, track.height))
    probabilities = model.probabilities(np.concatenate(found))
    assert len(found) > 60
    assert (probabilities[:, model.labels.index("running")] >= 0.7).mean() < 0.15


@pytest.mark.train
@pytest.mark.timeout(600)
def test_train_behaviour_stores_a_model_that_is_better_than_chance_and_a_report(tmp_path: Path) -> None:
    pytest.importorskip("keras")
    options = ["--tracks", "240", "--held-out", "64", "--epochs", "6", "--models", str(tmp_path), "--json"]
    report = tmp_path / "report.md"
    ran = CliRunner().invoke(app, ["train", "behaviour", "--out", "gait", "--report", str(report), *options])
    assert ran.exit_code == 0, ran.output
    found = json.loads(ran.stdout[ran.stdout.index("{") :])
    assert found["model"] == "gait@1"
    assert found["macro_f1"]["usual"] > 0.5
    assert "| walking |" in report.read_text()
    assert Repository(tmp_path).open("gait@1").manifest.training["seed"] == 0


@pytest.mark.train
@pytest.mark.timeout(600)
def test_two_trainings_with_one_seed_give_equal_models_and_the_onnx_file_gives_equal_probabilities(
    tmp_path: Path,
) -> None:
    pytest.importorskip("keras")
    from stream.analyse.behaviour.model import BehaviourModel
    from training.behaviour import network

    found, probabilities = examples(4, 64, per_track=4), []
    for number in range(2):
        model = network.build(5)
        network.fit(model, found, epochs=2, seed=5)
        network.export(model, path := tmp_path / f"{number}.onnx")
        probabilities.append(BehaviourModel(path, "gait@1").probabilities(found.windows))
        assert np.abs(network.predict(model, found.windows) - probabilities[-1]).max() < 1e-5
    assert np.array_equal(*probabilities)
