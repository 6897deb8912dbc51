"""Tests of the rule ``tailgating``."""

from __future__ import annotations

import pytest

from stream.analyse.rules.security.tailgating import TailgatingRule
from tests.stream.analyse.rules.scenes import SceneTrack, play, track

RULE = TailgatingRule(name="door", camera="c", pipeline="p", start=(0.5, 1.0), end=(0.5, 0.0), within_s=2.0)


def pair(delay_frames: int, *, opposite: bool = False) -> list[list[SceneTrack]]:
    """Return 60 frames with two persons, one of whom crosses the line ``delay_frames`` after the other."""

    def x(n: int) -> float:
        return 100.0 + 10 * n

    frames = []
    for n in range(60):
        second = 640.0 - x(n - delay_frames) if opposite else x(n - delay_frames)
        frames.append([track(x(n), 100.0, "a", "person"), track(second, 200.0, "b", "person")])
    return frames


def test_a_second_object_that_crosses_the_line_within_the_time_is_reported_with_its_headway() -> None:
    ((_, one),) = play(RULE.watch(640, 360), pair(6))
    assert one.track is not None
    assert (one.track.name, one.details["headway_s"]) == ("b", pytest.approx(1.2, abs=0.01))


def test_a_second_object_that_crosses_the_line_after_the_time_is_not_tailgating() -> None:
    assert play(RULE.watch(640, 360), pair(12)) == []


def test_objects_that_cross_the_line_in_opposite_directions_are_not_tailgating() -> None:
    assert play(RULE.watch(640, 360), pair(3, opposite=True)) == []


def test_an_object_that_crosses_during_the_cooldown_still_starts_the_tailgating_time() -> None:
    quiet = RULE.model_copy(update={"cooldown_s": 60.0})
    frames = [[*one, track(100.0 + 10 * (n - 9), 300.0, "z", "person")] for n, one in enumerate(pair(6))]
    found = play(quiet.watch(640, 360), frames)
    assert [one.track.name for _, one in found if one.track] == ["b", "z"]
