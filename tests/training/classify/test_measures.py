"""Tests of the measures of classifiers, and of checkpoints."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ingest.exceptions import ConfigError
from training.classify import checkpoint
from training.classify.checkpoint import EpochRecord, TrainingCheckpoint, TrainingProgress
from training.classify.loop import LoopOptions
from training.classify.measures import evaluated, wilson
from training.classify.networks import NetworkOptions
from training.classify.pictures import LabelledPictures
from training.classify.run import ClassifierOptions, settings_of


def test_wilson_intervals_equal_published_values() -> None:
    """Newcombe (1998, Statistics in Medicine 17:857, table I), method 3."""
    for hits, total, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)):
        found = wilson(hits, total)
        assert (round(found.low, 4), round(found.high, 4)) == (low, high)
    assert wilson(0, 0) == (0.0, 0.0, 1.0, 0)


def test_measures_of_a_classifier_are_computed_from_its_scores() -> None:
    scores = np.array([[0.9, 0.1], [0.8, 0.2], [0.05, 0.95], [0.45, 0.55], [0.7, 0.3]], np.float32)
    found = evaluated(("cat", "dog"), np.array([0, 0, 1, 0, 1]), scores)
    assert found.confusion.tolist() == [[2, 1], [1, 1]]
    assert found.accuracy.value == pytest.approx(0.6)
    cat, dog = found.classes
    assert (cat.precision.value, cat.recall.value) == pytest.approx((2 / 3, 2 / 3))
    assert (dog.precision.value, dog.recall.value) == pytest.approx((1 / 2, 1 / 2))
    assert found.mistakes == (4, 3)
    counts = [one.pictures for one in found.calibration]
    assert counts == [0, 0, 0, 0, 0, 1, 0, 1, 1, 2]
    gaps = [0.55 - 0, 0.7 - 0, 1 - 0.8, 2 * (1 - 0.925)]
    assert found.calibration_error == pytest.approx(sum(gaps) / 5, abs=1e-6)


def saved(folder: Path) -> TrainingCheckpoint:
    history = [EpochRecord(0.5, 0.75, 0.625, 0.5, 12.5)]
    state = TrainingCheckpoint(
        TrainingProgress(1, 3, 0.1, 2.0, 0, False, 4.5, history),
        {"batch": 32, "size": None},
        [np.arange(3, dtype=np.float32), np.array(7, np.int64)],
        [np.ones((2, 2), np.float32)],
    )
    checkpoint.save(folder, state)
    return state


def test_a_training_checkpoint_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert checkpoint.load(tmp_path) is None
    state = saved(tmp_path)
    found = checkpoint.load(tmp_path)
    assert found is not None
    assert (found.progress, found.settings) == (state.progress, state.settings)
    for wanted, values in zip([*state.variables, *state.best], [*found.variables, *found.best], strict=True):
        assert values.dtype == wanted.dtype
        assert np.array_equal(values, wanted)
    assert [path.name for path in tmp_path.iterdir()] == [checkpoint.CHECKPOINT]


def test_a_truncated_training_checkpoint_is_refused_with_the_next_step(tmp_path: Path) -> None:
    saved(tmp_path)
    path = tmp_path / checkpoint.CHECKPOINT
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ConfigError, match="Remove this file to train again"):
        checkpoint.load(tmp_path)


def test_resuming_a_training_with_other_settings_is_refused(tmp_path: Path) -> None:
    checkpoint.require_same_settings(tmp_path, {"batch": 32}, {"batch": 32})
    with pytest.raises(ConfigError, match="batch = 16: expected 32, as in the unfinished training in"):
        checkpoint.require_same_settings(tmp_path, {"batch": 32}, {"batch": 16})


def test_a_training_on_another_number_of_devices_is_not_resumed(tmp_path: Path) -> None:
    nothing = np.zeros((0, 8, 8, 3), np.uint8), np.zeros(0, np.int64)
    pictures = LabelledPictures(("cat", "dog"), (), *nothing, (), "")
    two, four = (
        settings_of(ClassifierOptions("pets", tmp_path, NetworkOptions(), LoopOptions(), cpu_devices=n), pictures)
        for n in (2, 4)
    )
    with pytest.raises(ConfigError, match="cpu_devices = 4: expected 2, as in the unfinished training"):
        checkpoint.require_same_settings(tmp_path, two, four)
