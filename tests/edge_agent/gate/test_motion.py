"""Tests of the motion detector: boxes of moving objects, and changes that must not be detected as motion."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import cv2
import numpy as np
import pytest

from edge_agent.gate.background import ABSORB_S
from edge_agent.gate.motion import MotionDetector
from edge_agent.sources.simulated import SceneConfig, SimulatedScene
from ingest.contract.records import Box


def noisy(seed: int, level: int = 90) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 5, (360, 640, 3))
    return np.clip(level + noise, 0, 255).astype(np.uint8)


def test_sensor_noise_is_not_detected_as_motion() -> None:
    detector = MotionDetector(0.0005)
    assert all(not detector.boxes(noisy(i)) for i in range(30))


def test_a_change_of_light_is_not_detected_as_motion() -> None:
    detector = MotionDetector(0.0005)
    for i in range(20):
        detector.boxes(noisy(i))
    assert not detector.boxes(noisy(21, level=130))


def test_a_moving_square_is_detected_at_its_position() -> None:
    detector = MotionDetector(0.0005)
    for i in range(10):
        detector.boxes(noisy(i))
    image = noisy(11)
    image[100:160, 200:300] = 220
    (found,) = detector.boxes(image)
    assert found.iou(Box(200, 100, 300, 160)) > 0.75


@pytest.mark.parametrize(("kind", "share"), [("road", 0.7), ("conveyor", 0.9)])
def test_most_moving_objects_of_a_scene_have_a_box_of_their_own(kind: str, share: float) -> None:
    scene, detector = SimulatedScene(SceneConfig(kind, seed=2)), MotionDetector(0.0005)  # type: ignore[arg-type]
    seen = found = 0
    for index in range(110):
        frame = scene.render(index)
        boxes = detector.boxes(frame.image)
        if index > 5:
            seen += len(frame.objects)
            found += sum(any(Box(*o.box).iou(box) > 0.5 for box in boxes) for o in frame.objects)
    assert seen > 50
    assert found >= share * seen


def test_motion_behind_a_mask_counts_as_masked_and_motion_beside_the_mask_is_reported() -> None:
    left_half = ((0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0))
    detector = MotionDetector(0.0005, [left_half])
    for i in range(10):
        assert not detector.detect(noisy(i), i * 10**8).masked
    image = noisy(11)
    image[100:160, 100:200] = 220
    seen = detector.detect(image, 11 * 10**8)
    assert (seen.boxes, seen.masked) == ((), True)
    image[100:160, 400:500] = 220
    seen = detector.detect(image, 11 * 10**8)
    assert not seen.masked
    assert [box.iou(Box(400, 100, 500, 160)) > 0.75 for box in seen.boxes] == [True]


FPS = 10.0
QUIET_S = 18.0
"""Time in s in each cycle of a simulated scene; no actor is in the picture afterwards."""
ROAD = SimulatedScene(SceneConfig("road", seed=4, noise_sigma=0.0)).render(round(QUIET_S * FPS)).image
NOISE = np.random.default_rng(0).normal(0, 4, (420, 700, 3)).astype(np.float32)
CAR = (slice(200, 250), slice(250, 350))
Change = Callable[[int, np.ndarray], np.ndarray]


def watch(frames: int, change: Change, fps: float = FPS, detector: MotionDetector | None = None) -> Iterator[int]:
    """Show frames of an empty, noisy road, each altered by ``change``.

    Yield the number of moving boxes in each frame.
    """
    detector = detector or MotionDetector(0.0005)
    for index in range(frames):
        noise = NOISE[index * 7 % 53 :][:360, index * 11 % 47 :][:, :640]
        image = (change(index, ROAD.astype(np.float32)) + noise).clip(0, 255).astype(np.uint8)
        yield len(detector.detect(image, round(index * 1e9 / fps)).boxes)


def parked(arrives_s: float, leaves_s: float, fps: float = FPS) -> Change:
    """Put a parked car on the road between two times."""

    def change(index: int, image: np.ndarray) -> np.ndarray:
        if arrives_s <= index / fps < leaves_s:
            image[CAR] = (40, 30, 30)
            image[210:240, 290:320] = 150
        return image

    return change


@pytest.mark.parametrize("fps", [5.0, 10.0, 25.0])
def test_a_stopped_object_joins_the_background_within_seconds_at_any_frame_rate(fps: float) -> None:
    seen = list(watch(round(12 * fps), parked(2.0, 99.0, fps), fps))
    moving = [index / fps for index, count in enumerate(seen) if count]
    assert moving[0] <= 2.0 + 1 / fps
    assert 2.0 + ABSORB_S - 1.0 < moving[-1] < 2.0 + ABSORB_S + 1.0


def test_no_motion_is_reported_where_a_stopped_object_has_left() -> None:
    seen = list(watch(200, parked(2.0, 12.0)))
    assert not any(seen[80:])


def test_an_object_parked_from_the_start_leaves_false_motion_for_a_few_seconds_when_it_departs() -> None:
    seen = list(watch(150, parked(0.0, 5.0)))
    gone = [index / FPS for index, count in enumerate(seen) if count]
    assert 5.0 <= gone[0] <= gone[-1] < 5.0 + ABSORB_S + 1.5


def test_no_motion_is_reported_behind_a_slow_car_with_a_plain_roof() -> None:
    def change(index: int, image: np.ndarray) -> np.ndarray:
        left = 4 * index
        image[200:250, max(0, left - 300) : left] = (160, 160, 165)
        image[200:250, max(0, left - 180) : max(0, left - 150)] = 50
        return image

    seen = list(watch(300, change))
    assert all(seen[10:150])
    assert not any(seen[280:])  # 300 px at 4 px a frame, out of the picture at frame 235


@pytest.mark.parametrize(("gain", "offset"), [(0.5, 0.0), (1.6, 0.0), (0.8, 60.0), (1.0, -40.0)])
def test_a_switched_light_is_not_detected_as_motion(gain: float, offset: float) -> None:
    def change(index: int, image: np.ndarray) -> np.ndarray:
        return image * gain + offset if 30 <= index < 60 else image

    assert not any(watch(100, change))


def test_a_moving_bus_is_detected_as_motion_but_a_lamp_that_lights_most_of_the_picture_is_not() -> None:
    def lamp(index: int, image: np.ndarray) -> np.ndarray:
        ramp = np.linspace(90, -30, image.shape[1])[None, :, None].clip(0)
        return image + ramp if index >= 30 else image

    assert not any(watch(60, lamp))

    def bus(index: int, image: np.ndarray) -> np.ndarray:
        if index >= 30:
            image[:, (index - 30) * 20 % 60 : 560] = 40 + index * 37 % 160
        return image

    assert sum(map(bool, watch(45, bus))) >= 12


def test_dawn_is_not_detected_as_motion() -> None:
    assert not any(watch(300, lambda index, image: image * (0.35 + 0.65 * index / 300)))


def test_a_trembling_mast_is_not_detected_as_motion_after_a_while() -> None:
    def sway(index: int, image: np.ndarray) -> np.ndarray:
        by = np.random.default_rng([index, 1]).normal(0, 1.2, 2)
        shift = np.array([[1, 0, by[0]], [0, 1, by[1]]], np.float32)
        return cv2.warpAffine(image, shift, image.shape[1::-1], borderMode=cv2.BORDER_REFLECT)

    assert sum(map(bool, [*watch(160, sway)][60:])) <= 10


@pytest.mark.parametrize("light", ["day", "night"])
@pytest.mark.parametrize("kind", ["road", "yard", "conveyor"])
def test_rain_is_not_detected_as_motion(kind: str, light: str) -> None:
    scene = SimulatedScene(SceneConfig(kind, seed=4, light=light, rain=True))  # type: ignore[arg-type]
    detector = MotionDetector(0.0005)
    empty = [index for index in range(400) if index % 200 >= QUIET_S * FPS]
    frames = [scene.render(index) for index in empty]
    assert not any(frame.objects for frame in frames)
    seen = [bool(detector.detect(frame.image, round(index * 1e8)).boxes) for index, frame in enumerate(frames)]
    assert sum(seen) <= 3


def test_the_background_is_learnt_anew_after_a_long_gap_between_frames() -> None:
    detector = MotionDetector(0.0005)
    assert not any(watch(20, lambda _, image: image, detector=detector))
    image = ROAD.copy()
    image[CAR] = 220
    assert not detector.detect(image, 3600 * 10**9).boxes


def test_motion_boxes_lie_inside_frames_of_any_size() -> None:
    for width, height in ((160, 90), (321, 239), (641, 359), (1283, 721)):
        detector, size = MotionDetector(0.0005), (height, width, 3)
        for index in range(5):
            detector.detect(np.full(size, 90, np.uint8), index * 10**8)
        image = np.full(size, 90, np.uint8)
        image[height // 2 :, width // 2 :] = 220
        (box,) = detector.detect(image, 5 * 10**8).boxes
        truth = Box(width // 2, height // 2, width, height)
        assert box.iou(truth) > 0.9
        assert (box.right, box.bottom) <= (width, height)
