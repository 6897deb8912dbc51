"""Tests of exported data sets: files, splits, labels, near-duplicates, privacy, and an export after a kill."""

from __future__ import annotations

import asyncio
import copy
import functools
import hashlib
import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import pytest

from ingest.contract.records import Redacted
from ingest.contract.topics import FRAMES
from ingest.exceptions import ConfigError
from ingest.kafka.log import TopicPartition
from ingest.site import CameraConfig
from ingest.site.picture import RedactConfig
from ingest.site.topic.view import Config
from stream.exceptions import NoResults
from stream.labels.candidates import CandidateExample, frame_of
from stream.labels.decisions import write_decision
from tests.training.datasets.footage import EVERY_S, GATE, YARD, Footage, box, exported, picture, request
from training.classify.folders import labelled_files
from training.datasets.export import export
from training.datasets.folder import verify
from training.datasets.frames import runs
from training.datasets.layout import folder_name
from training.datasets.request import SPLITS

HOUR = 30
"""Number of frames of one hour."""
BLOCK_S = 600


@functools.cache
def _hour() -> Footage:
    footage = Footage()
    for n in range(HOUR):
        footage.write("gate", n)
    return footage


def hour() -> Footage:
    """Return a log with one frame of the camera gate every two minutes of an hour."""
    return copy.deepcopy(_hour())


def sequence(row: dict[str, Any]) -> int:
    return int(row["frame"].split("/")[2])


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "files.jsonl").read_text().splitlines()]


def decide(footage: Footage, n: int, verdict: Any, corrected: str = "", by: str = "otto", **fields: Any) -> None:
    frame = frame_of(footage.write("gate", n, **fields))
    decision = CandidateExample(frame, frame.objects[0]).decision(verdict, by, 1, corrected)
    asyncio.run(write_decision(footage.log, decision))


def test_crops_show_their_object_with_a_margin_in_a_folder_for_each_label(tmp_path: Path) -> None:
    sheet = exported(hour(), tmp_path / "set")
    found = sorted(str(path.relative_to(tmp_path / "set").parent) for path in (tmp_path / "set").rglob("*.jpg"))
    splits = ("train", "validation", "test")
    assert set(found) == {f"{split}/{label}" for split in splits for label in ("car", "person")}
    crop = cv2.imread(str(next((tmp_path / "set").rglob("gate-1-4-*.jpg"))))
    assert crop is not None
    assert crop.shape[:2] == (round(36 * 1.2) + 1, 48)  # edges are rounded outwards
    counts = {split: sheet["counts"][split]["pictures"] for split in splits}
    assert sum(counts.values()) == len(found)
    assert counts["train"] > counts["validation"] > 0 < counts["test"]
    assert verify(tmp_path / "set") == []


def test_a_data_set_has_a_gap_between_neighbouring_blocks_of_time_in_different_splits(tmp_path: Path) -> None:
    exported(hour(), tmp_path / "set", gap_s=150.0)
    blocks: dict[int, set[str]] = {}
    for row in rows(tmp_path / "set"):
        blocks.setdefault(sequence(row) * EVERY_S // BLOCK_S, set()).add(row["split"])
    assert len(blocks) == 6
    assert all(len(splits) == 1 for splits in blocks.values())
    found = sorted((sequence(row), row["split"]) for row in rows(tmp_path / "set"))
    borders = [(b - a) * EVERY_S for (a, one), (b, other) in itertools.pairwise(found) if one != other]
    assert borders
    assert min(borders) >= 150


def test_an_object_that_stays_for_an_hour_is_one_example(tmp_path: Path) -> None:
    footage = Footage()
    for n in range(0, HOUR, 2):
        footage.write("gate", n, shows=7)
        footage.write("yard", n)
    sheet = exported(footage, tmp_path / "set", gap_s=0.0)
    assert sum(row["frame"].startswith("gate/") for row in rows(tmp_path / "set")) == 1
    assert sheet["selection"]["left_out"]["near-duplicate of another example"] == HOUR / 2 - 1


def test_near_duplicates_that_are_kept_are_all_in_one_split(tmp_path: Path) -> None:
    footage = Footage()
    for n in range(0, HOUR, 2):
        footage.write("gate", n, shows=7)
        footage.write("yard", n)
    exported(footage, tmp_path / "set", duplicates="group", gap_s=0.0)
    own = [row["split"] for row in rows(tmp_path / "set") if row["frame"].startswith("gate/")]
    assert len(own) == HOUR / 2
    assert len(set(own)) == 1


def test_pictures_of_a_held_out_camera_are_only_in_the_test_split(tmp_path: Path) -> None:
    footage = hour()
    for n in range(500, 505):
        footage.write("yard", n)
    exported(footage, tmp_path / "set", hold_out=("yard",))
    assert {row["split"] for row in rows(tmp_path / "set") if row["frame"].startswith("yard/")} == {"test"}


def test_simultaneous_pictures_of_cameras_at_one_place_are_in_the_same_split(tmp_path: Path) -> None:
    footage = hour()
    for n in range(HOUR):
        footage.write("yard", n, shows=300 + n)
    both = (GATE.model_copy(update={"place": "door"}), YARD.model_copy(update={"place": "door"}))
    exported(footage, tmp_path / "set", *both)
    splits: dict[int, set[str]] = {}
    for row in rows(tmp_path / "set"):
        splits.setdefault(sequence(row) * EVERY_S // BLOCK_S, set()).add(row["split"])
    assert all(len(one) == 1 for one in splits.values())


def test_an_export_prefers_pictures_on_which_models_disagree(tmp_path: Path) -> None:
    footage = Footage()
    results = [footage.write("gate", n) for n in range(HOUR)]
    for result in results[10:20]:
        footage.disagree(result, "bus")
    exported(footage, tmp_path / "set", limit=20, prefer={"disagreement": 0.5, "random": 0.5}, gap_s=0.0)
    reasons = {row["frame"]: row["reason"] for row in rows(tmp_path / "set")}
    assert len(reasons) == 20
    assert {frame for frame, reason in reasons.items() if reason == "disagreement"} == {
        str(result.id) for result in results[10:20]
    }


def test_exported_frames_keep_their_bytes_and_have_coco_annotations(tmp_path: Path) -> None:
    footage = hour()
    sheet = exported(footage, tmp_path / "set", layout="coco", gap_s=0.0, licence="internal", owner="ACME")
    for split in ("train", "validation", "test"):
        values = json.loads((tmp_path / "set" / "annotations" / f"instances_{split}.json").read_text())
        assert [one["name"] for one in values["categories"]] == ["car", "person"]
        assert len(values["images"]) == sheet["counts"][split]["pictures"] > 0
        assert {one["image_id"] for one in values["annotations"]} == {one["id"] for one in values["images"]}
        for image, note in zip(values["images"], values["annotations"], strict=True):
            n = int(image["file_name"].removesuffix(".jpg").split("-")[2])
            data = (tmp_path / "set" / split / image["file_name"]).read_bytes()
            assert data == picture("gate", (n, box(n)))
            left, top, right, bottom = box(n)
            assert note["bbox"] == [left, top, right - left, bottom - top]
            assert note["category_id"] == n % 2 + 1


def test_a_reviewed_data_set_has_human_labels_and_states_the_share_of_correct_model_labels(tmp_path: Path) -> None:
    footage = Footage()
    for n in range(0, 30, 3):
        decide(footage, n, "accept")
        decide(footage, n + 1, "correct", "tractor", by="vera")
        decide(footage, n + 2, "reject")
    decide(footage, 100, "accept")
    decide(footage, 100, "undo")
    footage.write("gate", 101)
    sheet = exported(footage, tmp_path / "set", review=True, block_s=600.0, gap_s=0.0)
    found = {row["frame"]: (row["objects"][0]["label"], row["decided_by"]) for row in rows(tmp_path / "set")}
    assert len(found) == 20
    assert found["gate/1/1"] == ("tractor", ["vera"])
    assert found["gate/1/0"] == ("car", ["otto"])
    assert sheet["labelled_by"] == {"models": {}, "people": {"otto": 10, "vera": 10}}
    assert (sheet["review"]["accepted"], sheet["review"]["rejected"]) == (10, 10)
    assert sheet["review"]["model_right"]["share"] == pytest.approx(1 / 3)


def test_a_reviewed_frame_is_exported_only_with_decisions_on_all_its_objects(tmp_path: Path) -> None:
    footage = Footage()
    for n in range(6):
        decide(footage, n, "reject" if n == 3 else "accept")
    footage.write("gate", 6)
    sheet = exported(footage, tmp_path / "set", review=True, layout="coco", block_s=60.0, gap_s=0.0)
    found = {row["frame"]: [one["label"] for one in row["objects"]] for row in rows(tmp_path / "set")}
    assert len(found) == 6
    assert found["gate/1/3"] == []
    assert sum(one["without_objects"] for one in sheet["counts"].values()) == 1


def test_a_killed_export_leaves_no_data_set_and_continues_with_the_frames_it_has_read(
    tmp_path: Path,
) -> None:
    footage, out = hour(), tmp_path / "set"

    def kill(step: str, *_: int) -> None:
        if step == "writing files":
            raise KeyboardInterrupt

    config = Config({GATE.key: GATE})
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(export(footage.log, request(), config, out, by="ada", at_ns=0, on_step=kill))
    assert not out.exists()
    with pytest.raises(ConfigError, match=r"options of the unfinished export in .*\.set\.partial"):
        exported(footage, out, limit=5)
    footage.log.forget(TopicPartition(FRAMES, 0), 1000)  # the log has no picture any more
    exported(footage, out)
    exported(hour(), tmp_path / "other")
    assert (out / "files.jsonl").read_text() == (tmp_path / "other" / "files.jsonl").read_text()
    assert [path.name for path in tmp_path.iterdir()].count(".set.partial") == 0
    with pytest.raises(ConfigError, match="a folder that does not exist yet"):
        exported(footage, out)


def test_verify_finds_changed_missing_and_added_files_of_a_data_set(tmp_path: Path) -> None:
    exported(hour(), tmp_path / "set")
    one, other, *_ = sorted((tmp_path / "set").rglob("*.jpg"))
    one.write_bytes(b"changed")
    other.unlink()
    (tmp_path / "set" / "train" / "more.jpg").write_bytes(b"")
    (tmp_path / "set" / "DATASHEET.md").write_text("changed")
    name = one.relative_to(tmp_path / "set")
    assert sorted(verify(tmp_path / "set")) == sorted(
        [
            f"{name}: changed",
            f"{other.relative_to(tmp_path / 'set')}: missing",
            "train/more.jpg: not in the list",
            "DATASHEET.md: changed",
        ]
    )


def test_frames_captured_without_a_currently_configured_privacy_mask_are_not_exported(tmp_path: Path) -> None:
    footage = Footage()
    for n in range(20):
        footage.write("gate", n, redacted=Redacted(masks=1) if n >= 10 else None)
    masked = CameraConfig(
        name="gate", source="device:0", redact=RedactConfig(masks=(((0.0, 0.0), (0.1, 0.0), (0.1, 0.1)),))
    )
    sheet = exported(footage, tmp_path / "set", masked, gap_s=0.0)
    assert {sequence(row) >= 10 for row in rows(tmp_path / "set")} == {True}
    assert sheet["selection"]["left_out"]["captured without a present privacy mask"] == 10
    assert sheet["source"]["cameras"]["gate"]["redaction"] == {"1 masks": 10}


def test_the_datasheet_of_a_data_set_names_gaps_hashes_and_owner(tmp_path: Path) -> None:
    sheet = exported(hour(), tmp_path / "set", owner="ACME | <b>", licence="internal use")
    text = (tmp_path / "set" / "DATASHEET.md").read_text()
    assert "Owner: ACME \\| \\<b\\>" in text
    assert "may show people: their agents redacted nothing" in text
    assert "No example of yard" in text
    assert "by model m@1" in text
    listed = hashlib.sha256((tmp_path / "set" / "files.jsonl").read_bytes()).hexdigest()
    assert sheet["files_sha256"] == json.loads((tmp_path / "set" / "datasheet.json").read_text())["files_sha256"]
    assert sheet["files_sha256"] == listed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "other"}, "no result is by model other: the results of the period are by m@1"),
        ({"pipeline": "q"}, "pipeline q has no results of these cameras in the period: the log has p"),
        ({"labels": ("bus",)}, "no example is left"),
        ({"since_ns": 10**18, "until_ns": 10**18 + 1}, "the log has no result of gate, yard"),
        ({"review": True}, "nobody has labelled an object"),
    ],
)
def test_an_export_without_results_gives_the_reason(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    footage = Footage()
    footage.write("gate", 0)
    with pytest.raises(NoResults, match=message):
        exported(footage, tmp_path / "set", **options)
    assert not (tmp_path / "set").exists()


def test_an_export_counts_frames_that_are_no_longer_in_the_log(tmp_path: Path) -> None:
    footage = hour()
    footage.log.forget(TopicPartition(FRAMES, 0), 10)
    sheet = exported(footage, tmp_path / "set")
    assert sheet["selection"]["left_out"]["no longer in the log"] == 10


def test_damaged_pictures_are_not_exported(tmp_path: Path) -> None:
    footage = hour()
    footage.write("gate", HOUR, image=b"\xff\xd8 not a picture \xff\xd9")
    sheet = exported(footage, tmp_path / "set")
    assert sheet["selection"]["left_out"]["cannot be decoded"] == 1


def test_exported_folders_can_be_read_by_the_training_of_classifiers(tmp_path: Path) -> None:
    sheet = exported(hour(), tmp_path / "set", split=(0.8, 0.2, 0.0))
    found = labelled_files(tmp_path / "set", "train classifier")
    assert found.labels == ("car", "person")
    parts = Counter(one.part for one in found.files)
    assert parts == {split: n for split in SPLITS if (n := sheet["counts"][split]["pictures"])}
    assert (tmp_path / "set" / "test").is_dir()


def test_an_export_keeps_a_minimum_time_between_frames_and_a_maximum_number_of_examples_per_label(
    tmp_path: Path,
) -> None:
    sheet = exported(hour(), tmp_path / "set", every_s=3 * EVERY_S, gap_s=0.0, per_label=5)
    found = sorted(sequence(row) for row in rows(tmp_path / "set"))
    assert min(b - a for a, b in itertools.pairwise(found)) >= 3
    labels = Counter(one["label"] for row in rows(tmp_path / "set") for one in row["objects"])
    assert max(labels.values()) <= 5
    assert sheet["selection"]["left_out"]["too close in time to another example (--every)"] > 0


def test_frames_with_near_offsets_are_read_together() -> None:
    assert [list(run) for run in runs([1, 2, 40, 200, 249, 300])] == [[1, 2, 40], [200, 249], [300]]
    assert list(runs([])) == []


@pytest.mark.parametrize(
    ("label", "name"),
    [("car", "car"), ("traffic light", "traffic light"), ("../up", "%2E.%2Fup"), (".", "%2E"), ("a/b", "a%2Fb")],
)
def test_a_label_becomes_a_safe_folder_name(label: str, name: str) -> None:
    assert folder_name(label) == name
