"""A picture of what a camera's settings do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_agent.exceptions import SourceUnusable
from edge_agent.preview import Preview, annotated, watch
from ingest.clock import SystemClock
from ingest.site import CameraConfig

LEFT = ((0.0, 0.0), (0.3, 0.0), (0.3, 1.0), (0.0, 1.0))
TOP = ((0.0, 0.0), (1.0, 0.0), (1.0, 0.2), (0.0, 0.2))


def road(**settings: object) -> CameraConfig:
    options = {"seed": 1, "frames": 45, "density": 2.0}
    return CameraConfig.model_validate(
        {"name": "road", "source": "simulated:road", "fps": 10, "options": options, **settings}
    )


def test_every_frame_has_a_fate_and_the_one_in_which_most_moves_is_shown() -> None:
    seen = []
    preview = watch(road(), 20.0, SystemClock(), lambda: seen.append(1))
    assert preview.fates.total() == len(seen) == 45
    assert preview.fates["sent"] > 0
    assert preview.motion
    assert preview.size_bytes > 1000
    assert preview.image is not None
    assert preview.image.shape == (360, 640, 3)


def test_what_is_masked_for_privacy_is_not_in_it() -> None:
    preview = watch(road(redact={"masks": [TOP]}), 20.0, SystemClock())
    assert preview.image is not None
    assert preview.image[:60].max() == 0


def test_masks_and_motion_are_drawn_and_a_line_says_what_became_of_the_frames() -> None:
    camera = road(gate={"masks": [LEFT]})
    preview = watch(camera, 20.0, SystemClock())
    picture = annotated(camera, preview)
    assert picture.shape == (382, 640, 3)
    assert np.abs(picture[100, 192].astype(int) - (40, 200, 240)).max() < 60  # the mask's edge, smoothed
    left, top, *_ = (round(edge) for edge in preview.motion[0])
    assert (picture[top, left] == (60, 200, 60)).all()
    assert picture[360:].max() > 200
    assert preview.image is not None
    np.testing.assert_array_equal(preview.image.shape[:2], (360, 640))


def test_without_a_picture_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(SourceUnusable, match="there is no picture"):
        annotated(road(), Preview())
    with pytest.raises(SourceUnusable, match=r"no\.mp4"):
        watch(road(source=str(tmp_path / "no.mp4"), options={}), 1.0, SystemClock())
