"""Tests of labelled folders: layouts, split, skipped files, and errors."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from engines.repository.manifest import InputSpec
from ingest.exceptions import ConfigError
from training.classify.augment import Augmentation, order_of
from training.classify.drawn import animals
from training.classify.folders import PARTS, labelled_files, part_of
from training.classify.pictures import LabelledPictures, fitted, read_pictures, require_every_label

SPEC = InputSpec(name="images", width=16, height=12)


def write(path: Path, seed: int = 0) -> Path:
    """Write a picture of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.random.default_rng(seed).integers(0, 256, (20, 30, 3), np.uint8))
    return path


def read(data: Path) -> LabelledPictures:
    folder = labelled_files(data, "test")
    return read_pictures(folder, SPEC, folder.labels, lambda title, total: lambda: None, "test")


def test_the_split_into_training_validation_and_test_is_stable_and_keeps_groups_of_pictures_together() -> None:
    parts = {stem: part_of("cat", stem) for stem in map(str, range(4000))}
    shares = {part: count / len(parts) for part, count in Counter(parts.values()).items()}
    assert shares["train"] == pytest.approx(0.7, abs=0.03)
    assert shares["validation"] == pytest.approx(0.15, abs=0.03)
    assert shares["test"] == pytest.approx(0.15, abs=0.03)
    assert parts["17"] == part_of("cat", "17__1") == part_of("cat", "17__other")


def test_pictures_are_split_by_the_folder_names_train_validation_and_test(tmp_path: Path) -> None:
    for seed, part in enumerate(PARTS):
        for label in ("a", "b"):
            write(tmp_path / part / label / f"{seed}.png", hash_of(part, label))
    found = read(tmp_path)
    assert found.labels == ("a", "b")
    assert [(f.part, f.label) for f in found.files] == [(part, label) for part in PARTS for label in ("a", "b")]
    assert found.classes.tolist() == [0, 1] * 3
    assert found.images.shape == (6, 12, 16, 3)
    assert found.indices("validation").tolist() == [2, 3]


def hash_of(part: str, label: str) -> int:
    return sum(map(ord, part + label))


def test_damaged_pictures_and_copies_are_skipped_with_their_reason(tmp_path: Path) -> None:
    good = write(tmp_path / "a" / "1.png")
    write(tmp_path / "b" / "1.png", 1)
    (tmp_path / "a" / "2.jpg").write_bytes(b"text")
    (tmp_path / "a" / "3.jpg").touch()
    (tmp_path / "b" / "9.png").write_bytes(good.read_bytes())
    found = read(tmp_path)
    assert [file.path.name for file in found.files] == ["1.png", "1.png"]
    assert {path.name: reason for path, reason in found.skipped} == {
        "2.jpg": "not a picture",
        "3.jpg": "the file is empty",
        "9.png": f"same bytes as {good}, which has the label a",
    }


def test_the_hash_of_the_data_covers_labels_and_contents(tmp_path: Path) -> None:
    write(tmp_path / "a" / "1.png", 0)
    write(tmp_path / "b" / "1.png", 1)
    before = read(tmp_path).sha256
    assert read(tmp_path).sha256 == before
    write(tmp_path / "b" / "1.png", 2)
    assert read(tmp_path).sha256 != before


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ([], "expected folders of at least two labels, found none"),
        (["a/1.png"], "expected folders of at least two labels, found a"),
        (["train/a/1.png", "test/a/1.png"], "expected folders train, validation, test; validation is missing"),
    ],
)
def test_training_data_with_too_few_labels_or_a_missing_split_is_refused(
    tmp_path: Path, files: list[str], expected: str
) -> None:
    for seed, file in enumerate(files):
        write(tmp_path / file, seed)
    with pytest.raises(ConfigError, match=re.escape(expected)):
        labelled_files(tmp_path, "test")


def test_a_label_without_a_usable_picture_in_one_split_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a" / "1.png", 1)
    (tmp_path / "b").mkdir()
    found = read(tmp_path)
    with pytest.raises(ConfigError, match=r"at least one usable picture of '[ab]' for \w+, found 0 of [01]"):
        require_every_label(found, tmp_path, "test")


def test_a_missing_folder_of_training_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected a readable folder"):
        labelled_files(tmp_path / "missing", "test")


def test_training_pictures_are_fitted_like_whole_frames_of_a_pipeline() -> None:
    image = np.full((50, 100, 3), 200, np.uint8)
    boxed = fitted(image, SPEC.model_copy(update={"fit": "letterbox", "width": 20, "height": 20}))
    assert (boxed[0, 0].tolist(), boxed[10, 10].tolist()) == ([114] * 3, [200] * 3)
    image[..., 0] = 7
    assert fitted(image, SPEC.model_copy(update={"colour": "rgb"}))[0, 0].tolist() == [200, 200, 7]


def test_augmentation_depends_only_on_the_seed_the_training_epoch_and_the_picture() -> None:
    images = np.random.default_rng(0).integers(0, 256, (8, 12, 16, 3), np.uint8)
    every = np.arange(8)
    whole = Augmentation("strong", True, 3, 5, 8).apply(images, every)
    part = Augmentation("strong", True, 3, 5, 8).apply(images, every[6:])
    assert np.array_equal(whole[6:], part)
    assert not np.array_equal(whole, Augmentation("strong", True, 3, 6, 8).apply(images, every))
    assert np.array_equal(images, Augmentation("none", True, 3, 5, 8).apply(images, every))
    assert sorted(order_of(3, 5, 8).tolist()) == list(range(8))
    assert order_of(3, 5, 80).tolist() != order_of(3, 6, 80).tolist()


def test_the_mirror_augmentation_mirrors_some_pictures_and_none_when_it_is_off() -> None:
    images = np.zeros((32, 9, 9, 3), np.uint8)
    images[:, :, :3] = 255  # bright on the left
    bright_right = {
        flip: int((Augmentation("light", flip, 0, 0, 32).apply(images, np.arange(32))[:, 4, 8, 0] > 128).sum())
        for flip in (True, False)
    }
    assert bright_right[False] == 0
    assert 4 < bright_right[True] < 28


def test_drawn_pictures_are_the_same_for_the_same_seed_and_differ_otherwise() -> None:
    first, again, other = (list(animals(2, 28, True, seed)) for seed in (1, 1, 2))
    assert [(one.label, one.number) for one in first] == [("cat", 0), ("cat", 1), ("dog", 0), ("dog", 1)]
    assert all(np.array_equal(a.image, b.image) for a, b in zip(first, again, strict=True))
    assert not any(np.array_equal(a.image, b.image) for a, b in zip(first, other, strict=True))
    assert all((one.image == one.image[..., :1]).all() for one in first)
