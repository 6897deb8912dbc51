"""Tests of the rule ``running``."""

from __future__ import annotations

import pytest

from stream.analyse.rules.security.running import RunningRule
from tests.stream.analyse.rules.scenes import SceneTrack, play, scene, track

RULE = RunningRule(name="hall", camera="c", pipeline="p")
STEP_S = 0.1


def moving(heights_per_s: float, height: float, frames: int = 40) -> list[list[SceneTrack]]:
    size = 0.4 * height, height
    return [
        [track(100.0 + heights_per_s * height * STEP_S * n, 200.0, "t", "person", size=size)] for n in range(frames)
    ]


@pytest.mark.parametrize("height", [20.0, 80.0])
def test_a_running_person_is_reported_once_at_any_distance_from_the_camera(height: float) -> None:
    ((at_s, one),) = play(RULE.watch(640, 360), moving(2.2, height), STEP_S)
    assert at_s < 2.0
    assert one.details["heights_per_s"] == pytest.approx(2.2, abs=0.1)


@pytest.mark.parametrize("height", [20.0, 80.0])
def test_a_walking_person_is_not_reported_as_running(height: float) -> None:
    assert play(RULE.watch(640, 360), moving(1.0, height), STEP_S) == []


def test_a_jump_of_the_bounding_box_is_not_reported_as_running() -> None:
    frames = [*moving(0.0, 80.0, 15), *[[track(180.0, 200.0, "t", "person", size=(32.0, 80.0))]] * 15]
    assert play(RULE.watch(640, 360), frames, STEP_S) == []


def test_a_person_who_walks_towards_the_camera_is_not_reported_as_running() -> None:
    heights = [50.0 * 1.025**n for n in range(50)]
    frames = [[track(560.0, 180.0, "t", "person", size=(0.4 * height, height))] for height in heights]
    assert play(RULE.watch(640, 360), frames, STEP_S) == []


def test_a_speed_that_varies_around_the_limit_is_reported_once() -> None:
    x, frames = 20.0, []
    for n in range(240):
        x += (1.9 if n // 20 % 2 == 0 else 1.5) * 20.0 * STEP_S
        frames.append([track(x, 200.0, "t", "person", size=(8.0, 20.0))])
    assert len(play(RULE.watch(1280, 360), frames, STEP_S)) == 1


@pytest.mark.parametrize(("pause", "reports"), [(0, 1), (12, 2)])
def test_a_reported_run_that_goes_on_after_an_occlusion_is_not_reported_again(pause: int, reports: int) -> None:
    """The speed is unknown in the first frames after the return. A run that ends is reported anew."""
    watch, height, found = RULE.watch(1280, 360), 20.0, 0
    before, after = moving(2.2, height, 20), moving(2.2, height, 20)
    for n, tracks in enumerate([*before, *moving(0.0, height, pause), *after]):
        if n == len(before):
            watch.resume("t")
        at_s = n * STEP_S + (5.0 if n >= len(before) else 0.0)
        found += len(watch.observe(scene(at_s, *tracks), ()))
    assert found == reports
