"""Where the gate says that something moves, and what it does not take for motion."""

from __future__ import annotations

import numpy as np
import pytest

from edge_agent.capture.simulated import Scene, SceneConfig
from edge_agent.gate.motion import MotionDetector
from ingest.records import Box


def overlap(a: Box, b: Box) -> float:
    width = min(a.right, b.right) - max(a.left, b.left)
    height = min(a.bottom, b.bottom) - max(a.top, b.top)
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / (a.width * a.height + b.width * b.height - both)


def noisy(seed: int, level: int = 90) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 5, (360, 640, 3))
    return np.clip(level + noise, 0, 255).astype(np.uint8)


def test_noise_alone_is_no_motion() -> None:
    detector = MotionDetector(0.0005)
    assert all(not detector.boxes(noisy(i)) for i in range(30))


def test_a_change_of_light_is_no_motion() -> None:
    detector = MotionDetector(0.0005)
    for i in range(20):
        detector.boxes(noisy(i))
    assert not detector.boxes(noisy(21, level=130))


def test_a_moving_square_is_found_where_it_is() -> None:
    detector = MotionDetector(0.0005)
    for i in range(10):
        detector.boxes(noisy(i))
    image = noisy(11)
    image[100:160, 200:300] = 220
    (found,) = detector.boxes(image)
    assert overlap(found, Box(200, 100, 300, 160)) > 0.75


@pytest.mark.parametrize(("kind", "share"), [("road", 0.7), ("conveyor", 0.9)])
def test_most_objects_of_a_scene_have_a_box_of_their_own(kind: str, share: float) -> None:
    scene, detector = Scene(SceneConfig(kind, seed=2)), MotionDetector(0.0005)  # type: ignore[arg-type]
    seen = found = 0
    for index in range(110):
        frame = scene.render(index)
        boxes = detector.boxes(frame.image)
        if index > 5:
            seen += len(frame.objects)
            found += sum(any(overlap(Box(*o.box), box) > 0.5 for box in boxes) for o in frame.objects)
    assert seen > 50
    assert found >= share * seen


def test_motion_behind_a_mask_is_masked_and_beside_it_is_not() -> None:
    left_half = ((0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0))
    detector = MotionDetector(0.0005, [left_half])
    for i in range(10):
        assert not detector.see(noisy(i)).masked
    image = noisy(11)
    image[100:160, 100:200] = 220
    seen = detector.see(image)
    assert (seen.boxes, seen.masked) == ((), True)
    image[100:160, 400:500] = 220
    seen = detector.see(image)
    assert not seen.masked
    assert [overlap(box, Box(400, 100, 500, 160)) > 0.75 for box in seen.boxes] == [True]
