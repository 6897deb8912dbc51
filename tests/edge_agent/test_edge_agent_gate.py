"""What the gate sends, and where it says that something moves."""

from __future__ import annotations

import numpy as np
import pytest

from edge_agent.capture.simulated import Scene, SceneConfig
from edge_agent.gate.gate import Gate
from edge_agent.gate.motion import MotionDetector
from ingest.records import Box
from ingest.site import GateConfig

FRAME_NS = 100_000_000


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


def test_the_first_frame_is_kept_and_a_still_scene_is_withheld_but_for_a_keep_alive() -> None:
    gate = Gate(GateConfig(keep_alive_s=1.0))
    verdicts = [gate.judge(noisy(i), i * FRAME_NS) for i in range(31)]
    assert [i for i, v in enumerate(verdicts) if v.keep] == [0, 10, 20, 30]
    assert {v.reason for v in verdicts if not v.keep} == {"still"}
    assert all(v.motion == () for v in verdicts)


def test_motion_opens_the_gate_and_holds_it() -> None:
    gate = Gate(GateConfig(keep_alive_s=0.0, hold_s=0.5))
    for i in range(10):
        gate.judge(noisy(i), i * FRAME_NS)
    image = noisy(10)
    image[100:160, 200:300] = 220
    assert gate.judge(image, 10 * FRAME_NS).motion
    kept = [gate.judge(noisy(i), i * FRAME_NS).keep for i in range(11, 20)]
    assert kept == [True] * 5 + [False] * 4


def test_the_rate_is_held() -> None:
    gate = Gate(GateConfig(max_fps=2.0, motion=False))
    verdicts = [gate.judge(noisy(0), i * FRAME_NS) for i in range(40)]
    assert sum(v.keep for v in verdicts) == 8
    assert {v.reason for v in verdicts if not v.keep} == {"rate"}
    assert all(v.motion is None for v in verdicts)
