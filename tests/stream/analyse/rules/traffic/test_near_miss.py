"""Tests of the rule ``near_miss``."""

from __future__ import annotations

import pytest

from stream.analyse.rules.traffic.near_miss import NearMissRule
from tests.stream.analyse.rules.scenes import SceneTrack, play, scene, track

RULE = NearMissRule(name="crossing", camera="c", pipeline="p", below_s=1.5)


def crossing(delay: int, *, label: str = "car") -> list[list[SceneTrack]]:
    """Return frames with an object that goes right, and one that crosses its way ``delay`` frames later."""
    frames = []
    for n in range(60):
        right = track(20.0 + 10 * n, 180.0, "right", label, size=(20.0, 20.0))
        up = track(320.0, 480.0 - 10 * (n - delay), "up", "car", size=(20.0, 20.0))
        frames.append([right, up])
    return frames


@pytest.mark.parametrize(("delay", "reports"), [(5, 1), (8, 1), (13, 0)])
def test_crossing_paths_are_a_near_miss_below_the_configured_post_encroachment_time(delay: int, reports: int) -> None:
    found = play(RULE.watch(640, 360), crossing(delay))
    assert len(found) == reports
    for _, one in found:
        assert one.track is not None
        assert (one.track.name, one.details["other"]) == ("up", "car")
        assert float(one.details["post_encroachment_s"]) == pytest.approx(0.2 * (delay - 2), abs=0.41)


def test_vehicles_that_follow_each_other_are_not_reported_as_a_near_miss() -> None:
    frames = [[track(20.0 + 10 * n, 180.0, "a"), track(20.0 + 10 * (n - 5), 180.0, "b")] for n in range(60)]
    assert play(RULE.watch(640, 360), frames) == []


def test_the_first_object_of_a_near_miss_must_have_one_of_the_configured_labels() -> None:
    persons = RULE.model_copy(update={"with_labels": ("person",)})
    assert play(persons.watch(640, 360), crossing(5)) == []
    assert len(play(persons.watch(640, 360), crossing(5, label="person"))) == 1


def test_an_event_of_one_pair_in_the_log_does_not_suppress_the_near_miss_of_another_pair() -> None:
    frames = [
        [right, right._replace(name="twin"), track(320.0, 530.0 - 10 * n, "up", size=(20.0, 80.0))]
        for n, (right, _) in enumerate(crossing(0))
    ]

    def found(reported_at: int) -> list[int]:
        state = RULE.watch(640, 360)
        return [
            n
            for n, tracks in enumerate(frames)
            for _ in state.observe(scene(0.2 * n, *tracks), {"up"} if n == reported_at else ())
        ]

    first, second = found(-1)
    assert found(first) == [second]


def test_the_heading_of_a_returning_object_does_not_depend_on_its_way_out_of_sight() -> None:
    """The object goes down out of sight, and then follows another one on the same way."""

    def reports(*, resumed: bool) -> int:
        watch, found = RULE.watch(640, 360), 0
        for n in range(60):
            follower = track(290.0, 20.0, "b") if n < 20 else track(20.0 + 10 * (n - 5), 180.0, "b")
            if n == 33 and resumed:
                watch.resume("b")
            tracks = [track(20.0 + 10 * n, 180.0, "a"), *([follower] if n < 20 or n >= 33 else [])]
            found += len(watch.observe(scene(0.2 * n, *tracks), ()))
        return found

    assert (reports(resumed=False), reports(resumed=True)) == (1, 0)
