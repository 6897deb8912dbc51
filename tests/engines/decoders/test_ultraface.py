"""Tests of UltraFace, a public SSD whose prior boxes are outside of the model, on a frame of a real video."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from engines.exceptions import AdoptFailed
from engines.repository.adopt import AdoptOptions, adopt
from engines.repository.manifest import Decoding, Model
from engines.repository.proposal import examined
from engines.repository.report import Overrides
from engines.repository.store import Repository
from tests.engines.decoders.models import detections

PRIORS = {"8": [10, 16, 24], "16": [32, 48], "32": [64, 96], "64": [128, 192, 256]}
"""Sides of UltraFace's prior boxes in px, by stride."""
SETTINGS: Mapping[str, Any] = {"form": "offsets", "priors": PRIORS}
FRAME = 690
"""A woman in profile, whose face lies around (705, 57)."""


def add(data: Path, folder: Path, decoder: str, settings: Mapping[str, Any] = SETTINGS) -> Model:
    options = AdoptOptions(
        "faces",
        decoder,
        ("background", "face"),
        colour="rgb",
        fit="stretch",
        mean=(127.0, 127.0, 127.0),
        scale=(1 / 128, 1 / 128, 1 / 128),
        decoding=Decoding(settings=dict(settings)),
    )
    return adopt(data / "ultraface-rfb-320.onnx", Repository(folder), options)


def test_ultraface_is_proposed_with_its_prior_boxes_and_finds_the_one_face_of_a_frame(
    shared_data: Path, tmp_path: Path
) -> None:
    examined(shared_data / "ultraface-rfb-320.onnx", "faces", Overrides(), tmp_path)
    model = Repository(tmp_path).open("faces", 1)
    assert model.manifest == add(shared_data, tmp_path / "by-hand", "ssd").manifest.model_copy(
        update={"sha256": model.manifest.sha256, "origin": model.manifest.origin}
    )
    video = cv2.VideoCapture(str(shared_data / "one-by-one-person-detection.mp4"))
    for _ in range(FRAME + 1):
        assert video.grab()
    picture = np.asarray(video.retrieve()[1], np.uint8)
    video.release()
    (face,) = detections(model, picture, min_score=0.7)
    assert face.label == "face"
    assert face.score > 0.9
    x, y = face.box.centre
    assert abs(x - 705) < 15
    assert abs(y - 57) < 15
    assert 25 < face.box.width < 60


@pytest.mark.parametrize(
    ("decoder", "reason"), [("corners", "ssd for offsets"), ("ssd", "form = offsets"), ("rtdetr", "form = offsets")]
)
def test_box_offsets_are_not_mistaken_for_corners_or_centres(
    shared_data: Path, tmp_path: Path, decoder: str, reason: str
) -> None:
    with pytest.raises(AdoptFailed, match=reason):
        add(shared_data, tmp_path, decoder, {})
