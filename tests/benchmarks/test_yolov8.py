"""Tests of the benchmark that serves a model in the output layout of YOLOv8."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.pipeline import video_frames
from benchmarks.serving.yolov8 import CERTAIN, CLIPS, converted, judge, missed
from deploy.classify.session import Answer
from deploy.local.modeltest import drawn_pictures
from engines.repository.adopt import COCO_LABELS, AdoptOptions, adopt
from engines.repository.proposal import examined
from engines.repository.report import Overrides
from engines.repository.store import Repository
from ingest.contract.identity import FrameId
from ingest.contract.records import Box, Detection
from tests.console.records import result

FRAME = 120
"""A frame of the second clip in which a woman stands at a table."""
CAR = Detection(box=Box(10.0, 10.0, 60.0, 60.0), label="car", class_id=2, score=0.9)
REPORT = {"settings": [{"key": "decoder", "value": "yolov8"}], "assumed": []}


def answer(clip: str, outcome: str = "classified") -> Answer:
    return Answer(Path(f"{Path(clip).stem}-0000.png"), outcome, frame=FrameId("c", 1, 0), result=result("c", 0))


def test_a_yolov8_export_needs_no_import_options_and_detects_the_same_boxes_as_its_yolox_source(
    shared_data: Path, tmp_path: Path
) -> None:
    source = shared_data / "yolox-nano.onnx"
    report = examined(converted(source, tmp_path / "export.onnx"), "street", Overrides(), tmp_path)
    settings = {setting.key: setting for setting in report.settings}
    assert settings["decoder"].value == "yolov8"
    assert {setting.source for setting in report.settings} == {"file"}
    original = adopt(source, Repository(tmp_path), AdoptOptions("original", "yolox", COCO_LABELS))
    picture = tmp_path / "frame.png"
    assert cv2.imwrite(str(picture), next(islice(video_frames(shared_data / CLIPS[1]), FRAME, None)))
    found, expected = (
        next(drawn_pictures(model, [picture], tmp_path / "drawn", 0.3, "onnxruntime")).detections
        for model in (Repository(tmp_path).open("street", 1), original)
    )
    assert [one.label for one in found] == [one.label for one in expected]
    assert "person" in [one.label for one in found]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.box, other.box, atol=0.05)
        assert abs(one.score - other.score) < 1e-4


def test_a_served_yolov8_model_with_a_box_in_each_clip_passes() -> None:
    assert judge(REPORT, [answer(clip) for clip in CLIPS], []) == []


@pytest.mark.parametrize(
    ("report", "answers", "differences", "fault"),
    [
        (REPORT | {"assumed": ["scale"]}, CLIPS, [], "assumed ['scale']"),
        (REPORT, CLIPS[:1], [], f"no object in {CLIPS[1]}"),
        (REPORT, CLIPS, ["a box of one model only"], "one model only"),
    ],
    ids=["assumed setting", "clip without object", "difference"],
)
def test_each_violation_of_the_yolov8_benchmark_is_reported(
    report: dict[str, object], answers: tuple[str, ...], differences: list[str], fault: str
) -> None:
    (found,) = judge(report, [answer(clip) for clip in answers], differences)
    assert fault in found


def test_a_frame_that_is_not_classified_is_reported() -> None:
    (found,) = judge(REPORT, [answer(clip, "shed") for clip in CLIPS], [])
    assert found.startswith("no result for car-detection-0000.png")


def test_the_yolov8_benchmark_accepts_a_box_near_the_score_threshold_that_only_one_model_finds() -> None:
    moved = CAR.model_copy(update={"box": Box(30.0, 10.0, 80.0, 60.0)})
    assert missed([CAR], [CAR], 0.3) == []
    assert missed([CAR], [moved], 0.3) == [CAR]
    assert missed([CAR.model_copy(update={"score": 0.3 + CERTAIN / 2})], [], 0.3) == []
