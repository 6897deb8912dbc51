"""Tests of stationary objects: when they begin and end, and when the gate reports them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise

import cv2
import numpy as np
import pytest

from edge_agent.gate import gate as gate_module
from edge_agent.gate import stationary as stationary_module
from edge_agent.gate.background import ESTABLISHED_S
from edge_agent.gate.decision import GateDecision, NumberedFrame
from edge_agent.gate.gate import Gate
from edge_agent.gate.motion import MotionDetector
from edge_agent.gate.stationary import StationaryMap
from edge_agent.sources.simulated import SceneConfig, SimulatedScene
from ingest.contract.records import MAX_RESTING, Box
from ingest.site import GateConfig

FPS = 10.0
ROAD = SimulatedScene(SceneConfig("road", seed=4, noise_sigma=0.0)).render(180).image
NOISE = np.random.default_rng(0).normal(0, 4, (420, 700, 3)).round().astype(np.int16)
CAR, NEXT = Box(248.0, 200.0, 352.0, 252.0), Box(352.0, 200.0, 456.0, 252.0)
Things = Iterable[tuple[Box, int, float, float]]
"""Test objects, each with box, grey level, and the first and last second in the picture."""


def picture(index: int, things: Things, gain: float | np.ndarray = 1.0) -> np.ndarray:
    image = ROAD.copy()
    for box, level, from_s, until_s in things:
        if from_s <= index / FPS < until_s:
            left, top, right, bottom = map(int, box)
            image[top:bottom, left:right] = level
    noise = NOISE[index * 7 % 53 :][:360, index * 11 % 47 :][:, :640]
    lit = image if isinstance(gain, float) and gain == 1.0 else (image * gain).astype(np.uint8)
    return cv2.add(lit, noise, dtype=cv2.CV_8U).astype(np.uint8, copy=False)


def watch(
    seconds: float,
    things: Things,
    detector: MotionDetector | None = None,
    gain: Callable[[int], float | np.ndarray] | None = None,
) -> dict[float, tuple[Box, ...]]:
    """Return the boxes of stationary objects in each second."""
    detector, found = detector or MotionDetector(0.0005), {}
    for index in range(round(seconds * FPS)):
        detector.detect(picture(index, things, gain(index) if gain else 1.0), round(index * 1e9 / FPS))
        found[index / FPS] = detector.stationary_boxes()
    return found


def same(found: tuple[Box, ...], *boxes: Box) -> bool:
    return len(found) == len(boxes) and all(a.iou(b) > 0.8 for a, b in zip(found, boxes, strict=True))


def test_a_stopped_object_is_stationary_until_it_leaves() -> None:
    found = watch(20.0, [(CAR, 30, 2.0, 15.0)])
    assert not any(boxes for at_s, boxes in found.items() if at_s < 5.0 or at_s > 15.5)
    assert all(same(boxes, CAR) for at_s, boxes in found.items() if 7.5 < at_s < 15.0)


def test_an_object_that_stops_beside_a_stationary_object_is_a_second_object() -> None:
    found = watch(30.0, [(CAR, 30, 2.0, 22.0), (NEXT, 160, 10.0, 99.0)])
    assert same(found[20.0], NEXT, CAR)
    assert same(found[29.0], NEXT)


@pytest.mark.parametrize("stood_s", [20.0, ESTABLISHED_S + 20.0])
def test_a_parked_car_stays_stationary_behind_a_passing_person(stood_s: float) -> None:
    person = CAR._replace(left=280.0, right=312.0)
    found = watch(stood_s + 40.0, [(CAR, 30, 2.0, stood_s + 30.0), (person, 220, stood_s, stood_s + 12.0)])
    assert same(found[stood_s + 8.0][:1], person)
    # the car may be reported in parts, but as a whole
    assert all(sum(map(CAR.shared, found[stood_s + n])) > 0.9 * CAR.area for n in range(30))
    assert not sum(map(CAR.shared, found[stood_s + 35.0])) > 0.5 * CAR.area


def test_a_stationary_object_survives_a_change_of_light() -> None:
    found = watch(25.0, [(CAR, 30, 2.0, 99.0)], gain=lambda index: 0.5 if 120 <= index < 180 else 1.0)
    assert all(same(found[at_s], CAR) for at_s in (10.0, 15.0, 20.0, 24.0))


def test_a_lamp_that_lights_half_of_the_picture_neither_adds_nor_removes_stationary_objects() -> None:
    lamp = Box(0.0, 0.0, 640.0, 190.0)
    found = watch(25.0, [(lamp, 250, 12.0, 18.0), (CAR, 30, 2.0, 99.0)])
    assert all(same(found[at_s], CAR) for at_s in (10.0, 13.0, 17.0, 20.0, 24.0))


def test_stationary_objects_survive_a_reset_of_the_background_after_a_change_of_light() -> None:
    stationary, place, nothing = StationaryMap((40, 40)), np.zeros((40, 40), np.bool_), np.zeros((40, 40), np.bool_)
    place[10:20, 10:20] = True
    stationary.stopped(place, place, 5.0)
    stationary.relit()
    stationary.uncovered(~nothing)  # the earlier light is back
    assert stationary.rectangles(50, None) == ((10, 10, 10, 10),)
    stationary.uncovered(place)
    assert stationary.rectangles(50, None) == ()


def at(left: int, top: int, right: int, bottom: int) -> np.ndarray:
    where = np.zeros((40, 40), np.bool_)
    where[top:bottom, left:right] = True
    return where


def test_moving_foliage_does_not_merge_two_stationary_objects() -> None:
    stationary = StationaryMap((40, 40))
    for second in range(60):
        stopped = at(second % 40, 2 * (second // 40), second % 40 + 1, 2 * (second // 40) + 1)
        stopped |= at(10, 10, 20, 20) & (second == 10) | at(20, 10, 30, 20) & (second == 50)
        stationary.stopped(stopped, stopped, float(second))
    first, second = (10, 10, 10, 10), (20, 10, 10, 10)
    assert [found for found in stationary.rectangles(50, None) if found[1] == 10] == [second, first]


def test_leaves_over_a_third_of_the_picture_are_not_treated_as_a_change_of_light() -> None:
    stationary, car = StationaryMap((40, 40)), at(25, 15, 35, 25)
    stationary.stopped(car, car, 0.0)
    for row in range(1, 30):
        leaves = at(0, row, 15, row + 1)
        stationary.stopped(leaves, leaves, 1.9 * row)
    assert (25, 15, 10, 10) in stationary.rectangles(50, None)


def test_small_changes_left_by_moving_leaves_are_not_searched_for_stationary_objects(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stationary, looks = StationaryMap((90, 160)), []
    parts = stationary_module._rectangles
    monkeypatch.setattr(stationary_module, "_rectangles", lambda *given: looks.append(1) or parts(*given))
    for n in range(0, 14_400, 7):
        speck = np.zeros((90, 160), np.bool_)
        speck.flat[n] = True
        stationary.stopped(speck, speck, 3.0 * n)
    car = np.zeros((90, 160), np.bool_)
    car[50:60, 50:70] = True
    stationary.stopped(car, car, 1e6)
    assert stationary.rectangles(7.2, None) == ((50, 50, 20, 10),)
    assert len(looks) == 1


def test_only_a_limited_number_of_the_latest_stationary_objects_is_reported() -> None:
    stationary = StationaryMap((90, 160))
    for n in range(MAX_RESTING + 4):
        where = np.zeros((90, 160), np.bool_)
        where[10:20, 7 * n : 7 * n + 5] = True
        stationary.stopped(where, where, 10.0 * n)
    found = stationary.rectangles(7.2, None)
    assert [left for left, _, _, _ in found] == [7 * n for n in range(MAX_RESTING + 3, 3, -1)]


def test_no_stationary_object_is_reported_behind_a_mask_or_before_the_first_frame() -> None:
    left_half = ((0.0, 0.0), (0.6, 0.0), (0.6, 1.0), (0.0, 1.0))
    detector = MotionDetector(0.0005, [left_half])
    assert detector.stationary_boxes() == ()
    assert not any(watch(12.0, [(CAR, 30, 2.0, 99.0)], detector).values())


def test_a_picture_of_another_size_clears_the_stationary_objects() -> None:
    detector = MotionDetector(0.0005)
    assert watch(10.0, [(CAR, 30, 2.0, 99.0)], detector)[9.9]
    detector.detect(np.zeros((480, 1000, 3), np.uint8), 10 * 10**9)
    assert detector.stationary_boxes() == ()


def play(config: GateConfig, seconds: float, things: Things) -> list[GateDecision]:
    gate, decisions = Gate(config, "a", 1), list[GateDecision]()
    for index in range(round(seconds * FPS)):
        at_ns = round(index * 1e9 / FPS)
        reason = gate.precheck(at_ns)
        frame = NumberedFrame(index, at_ns, image=picture(index, things))
        decisions += gate.withhold(frame, reason) if reason else gate.decide(frame)
    return [decision for decision in decisions if decision.keep]


PARKED = [(CAR, 30, 2.0, 99.0)]


def reports_s(decisions: list[GateDecision]) -> list[float]:
    """Return the times in s of the sent frames that report stationary objects."""
    return [decision.frame.captured_ns / 1e9 for decision in decisions if decision.resting]


def test_stationary_objects_are_reported_when_motion_ends_and_in_each_keep_alive_frame() -> None:
    decisions = play(GateConfig(sample=0.0, keep_alive_s=5.0), 30.0, PARKED)
    reports = reports_s(decisions)
    assert reports[0] < 7.0
    assert reports[1] - reports[0] < 0.3  # reported twice, so that a tracker can begin a track
    assert [b - a >= 4.9 for a, b in pairwise(reports[1:])] == [True] * (len(reports) - 2)
    assert len(reports) >= 6
    assert sum(decision.frame.captured_ns > 9e9 for decision in decisions) == len(reports) - 2


def test_frames_are_searched_for_stationary_objects_only_when_a_report_is_due(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    searched, resting = [], MotionDetector.stationary_boxes
    monkeypatch.setattr(MotionDetector, "stationary_boxes", lambda self: searched.append(1) or resting(self))
    decisions = play(GateConfig(sample=0.0, keep_alive_s=5.0), 30.0, PARKED)
    assert len(reports_s(decisions)) >= 6
    assert len(searched) < 60  # in 300 frames


def test_a_sampled_frame_has_no_report_of_stationary_objects_and_delays_no_report() -> None:
    decisions = play(GateConfig(sample=0.2, keep_alive_s=5.0), 40.0, PARKED)
    assert all(decision.resting is None for decision in decisions if decision.sampled)
    reports = reports_s(decisions)
    assert max(b - a for a, b in pairwise(reports)) < 6.0


def test_an_open_gate_reports_stationary_objects_every_ten_seconds() -> None:
    passing = [(Box(20.0 * n, 60.0, 20.0 * n + 60.0, 100.0), 230, 5.0 + n / 5, 5.2 + n / 5) for n in range(25)]
    loop = [
        (box, level, from_s + 5 * k, until_s + 5 * k) for box, level, from_s, until_s in passing for k in range(6)
    ]
    decisions = play(GateConfig(sample=0.0, keep_alive_s=0.0), 33.0, [*PARKED, *loop])
    reports = [at_s for at_s in reports_s(decisions) if at_s > 8.0]
    gaps = [b - a for a, b in pairwise(reports)]
    assert sum(gap > 1.0 for gap in gaps) >= 1
    assert all(gap < 0.5 or gap >= gate_module.REPORT_STATIONARY_NS / 1e9 - 0.01 for gap in gaps)


def test_a_gate_without_motion_detection_reports_no_stationary_objects() -> None:
    assert {decision.resting for decision in play(GateConfig(motion=False), 3.0, PARKED)} == {None}


def test_a_buffered_frame_reports_the_objects_that_were_stationary_at_its_capture_time() -> None:
    """The frame was captured while the car was parked, and leaves the buffer after the car has left."""
    config = GateConfig(sample=0.0, keep_alive_s=4.0, pre_roll_s=1.0)
    decisions = play(config, 30.0, [(CAR, 30, 2.0, 21.35)])
    before = [
        decision
        for decision in decisions
        if decision.resting is not None and 16.0 < decision.frame.captured_ns / 1e9 < 21.3
    ]
    assert before
    assert all(same(decision.resting or (), CAR) for decision in before)
