"""Tests of the counts at lines in real clips, against counts by eye."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.analytics.clips import CountedClip
from engines.repository.adopt import COCO_LABELS, AdoptOptions, adopt
from engines.repository.store import Repository


@pytest.fixture(scope="module")
def models(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    adopt(shared_data / "yolox-nano.onnx", Repository(folder), AdoptOptions("yolox-nano", "yolox", COCO_LABELS))
    return folder


@pytest.mark.parametrize(
    ("name", "from_s", "to_s", "by_eye"),
    [
        pytest.param("cars", 0.0, 31.0, {"backward": 2, "forward": 2}, id="cars from above"),
        pytest.param("highway", 16.0, 23.2, {"backward": 9, "forward": 2}, id="a truck that hides a car"),
        pytest.param("people", 16.0, 20.0, {"forward": 1}, id="a person who leaves"),
    ],
)
def test_a_line_in_a_real_clip_counts_as_a_person_does(
    shared_data: Path, models: Path, name: str, from_s: float, to_s: float, by_eye: dict[str, int]
) -> None:
    clip = CountedClip.of(name)
    events = clip.analyse(shared_data, models, from_s, to_s).events
    counts = clip.compared(events, from_s, to_s)
    assert counts == {"by_eye": by_eye, "counted": by_eye, "missed": 0, "false": 0}
