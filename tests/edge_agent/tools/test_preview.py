"""Tests of the preview of a camera's settings."""

from __future__ import annotations

import time
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from edge_agent.exceptions import SourceEnded, SourceUnusable
from edge_agent.redact.cover import FILL_GREY
from edge_agent.redact.detector import Detector
from edge_agent.redact.history import ScoredBox
from edge_agent.redact.redactor import Redactor
from edge_agent.sources.source import CapturedFrame, Image, unusable
from edge_agent.tools.preview import annotated, watch
from ingest.contract.records import Box
from ingest.runtime.clock import ManualClock, SystemClock
from ingest.site import CameraConfig

LEFT = ((0.0, 0.0), (0.3, 0.0), (0.3, 1.0), (0.0, 1.0))
TOP = ((0.0, 0.0), (1.0, 0.0), (1.0, 0.2), (0.0, 0.2))


class TickingClock(ManualClock):
    """Clock that advances by half a frame interval at each query, so no test waits for a frame."""

    def monotonic(self) -> float:
        self.advance(0.05)
        return super().monotonic()


def road(**settings: object) -> CameraConfig:
    options = {"seed": 1, "frames": 45, "density": 2.0}
    return CameraConfig.model_validate(
        {"name": "road", "source": "simulated:road", "fps": 10, "options": options, **settings}
    )


def test_a_preview_counts_every_frame_and_shows_a_frame_with_motion() -> None:
    preview = watch(road(), 20.0, TickingClock())
    assert preview.counts.total() == 45
    assert preview.counts["sent"] > 0
    assert preview.motion
    assert preview.size_bytes > 1000
    assert preview.image.shape == (360, 640, 3)


def test_privacy_masks_are_black_in_the_preview_picture() -> None:
    preview = watch(road(redact={"masks": [TOP]}), 20.0, TickingClock())
    assert preview.image[:60].max() == 0


def test_gate_masks_motion_boxes_and_a_line_of_text_with_counts_are_drawn_into_the_preview_picture() -> None:
    camera = road(gate={"masks": [LEFT]})
    preview = watch(camera, 20.0, TickingClock())
    picture = annotated(camera, preview)
    assert picture.shape == (382, 640, 3)
    assert np.abs(picture[100, 192].astype(int) - (40, 200, 240)).max() < 60  # the mask's smoothed edge
    left, top, *_ = (round(edge) for edge in preview.motion[0])
    assert (picture[top, left] == (60, 200, 60)).all()
    assert picture[360:].max() > 200
    np.testing.assert_array_equal(preview.image.shape[:2], (360, 640))


def test_a_preview_of_a_missing_file_raises_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceUnusable, match=r"no\.mp4"):
        watch(road(source=str(tmp_path / "no.mp4"), options={}), 1.0, SystemClock())


class FindsOnce:
    """Detector that finds a face in its second picture only."""

    name = "finds-once"

    def __init__(self) -> None:
        self.looks = 0

    def find(self, image: Image, min_score: float) -> list[ScoredBox]:
        self.looks += 1
        return [ScoredBox(Box(0, 0, image.shape[1], image.shape[0]), 1.0)] if self.looks == 2 else []


def test_a_face_that_the_detector_misses_in_the_preview_frame_is_still_covered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    detector = FindsOnce()
    monkeypatch.setattr(
        "edge_agent.tools.preview.Redactor",
        lambda config: Redactor(config, make=lambda *_: cast("Detector", detector)),
    )
    redact = {"faces": {"decoder": "haar"}, "method": "fill", "hold_s": 3600}
    preview = watch(road(redact=redact), 20.0, TickingClock())
    assert (detector.looks, preview.redacted) == (preview.counts["sent"], 1)
    assert (preview.image == FILL_GREY).all()


class GivenPictures:
    """Source of given pictures; None stands for a broken picture."""

    def __init__(self, *pictures: Image | None) -> None:
        self._pictures = iter(pictures)

    def open(self) -> None: ...

    def close(self) -> None: ...

    def read(self) -> CapturedFrame:
        for number, picture in enumerate(self._pictures):
            return unusable("it is cut off", number) if picture is None else CapturedFrame(picture, time.time_ns())
        raise SourceEnded("over")


def test_a_preview_counts_broken_and_grey_pictures_as_unusable(monkeypatch: pytest.MonkeyPatch) -> None:
    well, grey = np.full((40, 60, 3), 90, np.uint8), np.zeros((40, 60), np.uint8)
    monkeypatch.setattr("edge_agent.tools.preview.make_source", lambda *_: GivenPictures(None, grey, well, None))
    preview = watch(road(), 5.0, SystemClock())
    assert preview.counts == {"unusable": 3, "sent": 1}
