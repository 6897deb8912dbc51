"""Tests of the text of results."""

from __future__ import annotations

from deploy.cli.tools.results import detection_text
from ingest.contract.records import Attribute, Box, Detection

CAR = Detection(box=Box(0, 0, 9, 9), label="car", class_id=1, score=0.914)


def test_a_detection_without_second_stage_models_has_its_label_and_score() -> None:
    assert detection_text(CAR) == "car 0.91"


def test_a_detection_has_the_label_of_each_second_stage_model_or_the_reason_for_a_missing_label() -> None:
    given = (
        Attribute(name="type", label="van", score=0.8, model="vehicle@1"),
        Attribute(name="plate", missing="small"),
    )
    assert detection_text(CAR.model_copy(update={"attributes": given})) == "car 0.91 (type: van 0.80, plate: small)"
