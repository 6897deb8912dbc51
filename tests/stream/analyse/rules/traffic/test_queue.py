"""Tests of the rule ``queue``."""

from __future__ import annotations

from ingest.site.ground import GroundConfig
from stream.analyse.ground import GroundPlane
from stream.analyse.rules.traffic.queue import QueueRule
from tests.stream.analyse.rules.scenes import SceneTrack, play, track

LANE = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))
RULE = QueueRule(name="lane", camera="c", pipeline="p", polygon=LANE, at_least=3, for_s=2.0, hysteresis=1)
GROUND = GroundPlane.of(
    GroundConfig(corners=((0.0, 1.0), (1.0, 1.0), (1.0, 0.0), (0.0, 0.0)), width_m=64.0, length_m=36.0), 640, 360
)


def standing(count: int) -> list[SceneTrack]:
    return [track(100.0 + 60 * n, 200.0, f"t{n}", at_rest=True) for n in range(count)]


def test_a_queue_of_vehicles_is_reported_once_with_its_length_in_metres() -> None:
    found = play(RULE.watch(640, 360), [standing(2)] * 10 + [standing(4)] * 30, ground=GROUND)
    assert [(at_s, one.details["count"], one.details["length_m"]) for at_s, one in found] == [(4.0, 4, 18.0)]
    assert found[0][1].summary == "4 objects have queued in lane for 2 s, 18 m long"


def test_creeping_vehicles_count_as_a_queue_and_driving_vehicles_do_not() -> None:
    def row(pace: float) -> list[SceneTrack]:
        return [
            track(200.0, 100.0 * n, f"t{n}", trail=[(200.0 - pace * k, 100.0 * n) for k in range(9, -1, -1)])
            for n in range(1, 4)
        ]

    assert len(play(RULE.watch(640, 360), [row(1.0)] * 20)) == 1
    assert play(RULE.watch(640, 360), [row(8.0)] * 20) == []


def test_a_queue_that_loses_one_vehicle_within_the_hysteresis_is_not_reported_again() -> None:
    frames = [*[standing(3)] * 20, *[standing(2)] * 20, *[standing(3)] * 20]
    assert len(play(RULE.watch(640, 360), frames)) == 1
    assert len(play(RULE.model_copy(update={"hysteresis": 0}).watch(640, 360), frames)) == 2


def test_a_queue_event_of_a_camera_without_a_ground_plane_has_no_length() -> None:
    ((_, one),) = play(RULE.watch(640, 360), [standing(3)] * 20)
    assert "length_m" not in one.details


def test_a_queue_ends_when_no_vehicle_is_left_even_with_a_large_hysteresis() -> None:
    rule = RULE.model_copy(update={"hysteresis": 3})
    assert len(play(rule.watch(640, 360), [*[standing(3)] * 20, *[[]] * 10, *[standing(3)] * 20])) == 2


def test_vehicles_whose_tracks_wait_for_reidentification_count_in_a_queue() -> None:
    found = play(RULE.watch(640, 360), [standing(2)] * 20, waiting=tuple(standing(3)[2:]))
    assert [one.details["count"] for _, one in found] == [3]
