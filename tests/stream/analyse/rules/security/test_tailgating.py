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


def test_an_object_that_crosses_the_line_soon_after_another_is_reported_as_tailgating_with_its_headway() -> None:
    ((_, one),) = play(RULE.watch(640, 360), pair(6))
    assert one.track is not None
    assert (one.track.name, one.details["headway_s"]) == ("b", pytest.approx(1.2, abs=0.01))


def test_an_object_that_crosses_the_line_long_after_another_is_not_reported_as_tailgating() -> None:
    assert play(RULE.watch(640, 360), pair(12)) == []


def test_objects_that_cross_the_line_in_opposite_directions_are_not_tailgating() -> None:
    assert play(RULE.watch(640, 360), pair(3, opposite=True)) == []


def test_a_third_object_that_follows_a_reported_one_is_reported_as_tailgating_during_the_cooldown() -> None:
    quiet = RULE.model_copy(update={"cooldown_s": 60.0})
    frames = [[*one, track(100.0 + 10 * (n - 9), 300.0, "z", "person")] for n, one in enumerate(pair(6))]
    found = play(quiet.watch(640, 360), frames)
    assert [one.track.name for _, one in found if one.track] == ["b", "z"]


def test_an_object_that_steps_back_and_forth_over_the_line_is_not_reported_as_tailgating() -> None:
    there_and_back = [290.0, 310.0, 330.0, 350.0, 330.0, 310.0, 290.0]
    frames = [[track(x, 100.0, "a", "person")] for x in there_and_back * 3]
    assert play(RULE.watch(640, 360), frames) == []


@pytest.mark.parametrize("names", ["ab", "ba"])
def test_the_second_of_two_objects_that_cross_the_line_between_the_same_frames_is_reported_as_tailgating(
    names: str,
) -> None:
    places = {"a": 20.0, "b": 13.0}
    frames = [[track(places[name] + 30 * n, 100.0, name, "person") for name in names] for n in range(20)]
    ((_, one),) = play(RULE.watch(640, 360), frames)
    assert one.track is not None
    assert one.track.name == "b"
    assert float(one.details["headway_s"]) > 0.0


def test_a_line_crossing_whose_label_becomes_known_later_keeps_the_time_of_the_crossing() -> None:
    rule = RULE.model_copy(update={"labels": ("person",)})
    frames = [[a._replace(label="dog" if n < 35 else "person"), b] for n, (a, b) in enumerate(pair(6))]
    ((_, one),) = play(rule.watch(640, 360), frames)
    assert one.details["headway_s"] == pytest.approx(1.2, abs=0.01)
    assert one.summary == "person crossed door 1.2 s before another object"
