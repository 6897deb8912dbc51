"""Tests of the reasons why a rule does not report a track."""

from __future__ import annotations

from stream.analyse.rule import OUTSIDE, UNMET, CameraRule, Scene
from stream.analyse.rules.count import CountRule
from stream.analyse.rules.line import LineRule
from stream.analyse.rules.security.left import LeftRule
from stream.analyse.rules.security.tailgating import TailgatingRule
from stream.analyse.rules.traffic.section import SectionRule
from stream.analyse.rules.zone import ZoneRule
from tests.stream.analyse.rules.scenes import scene, track

LEFT_HALF = ((0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0))
ZONE = ZoneRule(name="left", camera="c", pipeline="p", polygon=LEFT_HALF, dwell_s=5.0)
LINE = LineRule(name="line", camera="c", pipeline="p", start=(0.5, 1.0), end=(0.5, 0.0))


def reasons(rule: CameraRule, *scenes: Scene) -> list[str]:
    """Return the reasons of the first track of the last scene."""
    watch = rule.watch(640, 360)
    for one in scenes:
        watch.observe(one, ())
    return watch.reasons(scenes[-1], scenes[-1].tracks[0])


def scene_reasons(rule: CameraRule, *scenes: Scene) -> list[str]:
    watch = rule.watch(640, 360)
    for one in scenes:
        watch.observe(one, ())
    return watch.scene_reasons(scenes[-1])


def with_(rule: CameraRule, **change: object) -> CameraRule:
    return type(rule).model_validate({**rule.model_dump(), **change})


def test_the_explanation_of_a_rule_names_the_first_setting_that_a_track_does_not_meet() -> None:
    van = track(150.0, 150.0, moved=0.02, label="car", score=0.24)
    assert with_(ZONE, min_score=0.3).misfit(van) == "score 0.24 below min_score 0.3"
    assert with_(ZONE, min_score=0.2, min_move=0.05).misfit(van) == (
        "moved by 0.02 of the picture's diagonal, below min_move 0.05"
    )
    assert (
        with_(ZONE, min_score=0.2, labels=["bus", "truck"]).misfit(van) == "label car is not in labels (bus, truck)"
    )
    assert with_(ZONE, min_score=0.2, attributes={"type": "van"}).misfit(van) == (
        "attribute type is missing, expected van"
    )
    assert with_(ZONE, min_score=0.2).misfit(van) == ""


def test_the_explanation_of_a_zone_rule_states_whether_a_track_is_inside_and_its_dwell_time() -> None:
    assert reasons(ZONE, scene(0.0, track(500.0, 150.0))) == [OUTSIDE]
    inside = [scene(float(n), track(150.0, 150.0)) for n in range(8)]
    assert reasons(ZONE, *inside[:3]) == ["the condition has held for 2.0 s of 5 s"]
    assert reasons(ZONE, *inside) == ["already reported: the condition has held for 7.0 s without interruption"]


def test_the_explanation_of_a_rule_states_that_a_frame_is_outside_the_active_hours_of_the_rule() -> None:
    never = with_(ZONE, dwell_s=0.0, hours=[{"start": "03:00", "end": "04:00"}])
    assert reasons(never, scene(0.0, track(150.0, 150.0))) == ["outside of its hours"]


def test_the_explanation_of_a_line_rule_names_a_crossing_in_a_direction_that_is_not_reported() -> None:
    path = [scene(float(n), track(x, 150.0)) for n, x in enumerate((300.0, 310.0, 330.0, 340.0))]
    assert reasons(with_(LINE, direction="backward"), *path) == [
        "crossed forward, but the rule reports only backward"
    ]


def test_a_line_rule_explains_that_a_crossing_is_not_reported_until_its_track_has_a_configured_label() -> None:
    path = [scene(float(n), track(x, 150.0, label="car")) for n, x in enumerate((300.0, 310.0, 330.0, 340.0))]
    assert reasons(with_(LINE, labels=["bus"]), *path) == [
        "label car is not in labels (bus)",
        "crossed forward, and waits until the rule applies",
    ]


def test_a_crossing_that_follows_no_other_object_is_no_tailgating() -> None:
    rule = TailgatingRule(name="t", camera="c", pipeline="p", start=LINE.start, end=LINE.end, within_s=2.0)
    path = [scene(float(n), track(x, 150.0)) for n, x in enumerate((300.0, 310.0, 330.0, 340.0))]
    assert reasons(rule, *path) == [UNMET]


def test_the_explanation_of_an_average_speed_rule_names_the_next_line_that_a_track_must_cross() -> None:
    rule = SectionRule(
        name="s",
        camera="c",
        pipeline="p",
        first=((0.25, 1.0), (0.25, 0.0)),
        second=((0.75, 1.0), (0.75, 0.0)),
        distance_m=50.0,
        above_km_h=50.0,
    )
    path = [scene(n / 5, track(100.0 + 20.0 * n, 150.0)) for n in range(12)]
    assert reasons(rule, *path[:2]) == ["has not crossed the first line: 40 px to the left of the line"]
    assert reasons(rule, *path) == [
        "has crossed the first line, but not yet the second line: 160 px to the left of the line"
    ]


def test_the_explanation_of_a_count_rule_states_the_count_and_the_counted_tracks() -> None:
    rule = CountRule(name="n", camera="c", pipeline="p", polygon=LEFT_HALF, at_least=1, for_s=10.0)
    inside, outside = track(150.0, 150.0, name="a"), track(500.0, 150.0, name="b")
    scenes = [scene(float(n), inside, outside) for n in range(4)]
    assert reasons(rule, *scenes) == ["counted"]
    assert scene_reasons(rule, *scenes) == ["1 objects counted: the condition has held for 3.0 s of 10 s, 4 frames"]
    assert scene_reasons(rule, scene(0.0, outside)) == ["0 objects counted: the condition does not hold"]


def test_a_rule_for_the_foot_points_of_objects_tests_whether_the_foot_point_is_in_the_polygon() -> None:
    upper = LeftRule(
        name="l", camera="c", pipeline="p", polygon=((0.0, 0.0), (1.0, 0.0), (1.0, 0.43), (0.0, 0.43)), for_s=1.0
    )
    bag = track(150.0, 150.0, label="suitcase")
    assert bag.foot[1] > 0.43 * 360 > bag.box.centre[1]
    assert reasons(upper, scene(0.0, bag)) == [OUTSIDE]


def test_the_explanation_of_a_rule_names_an_attribute_whose_label_differs_from_the_configured_labels() -> None:
    van = track(150.0, 150.0, type="car")
    assert (
        with_(ZONE, attributes={"type": ["van", "bus"]}).misfit(van) == "attribute type is car, expected van or bus"
    )
