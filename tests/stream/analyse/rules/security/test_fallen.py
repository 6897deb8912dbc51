"""Tests of the rule ``fallen``."""

from __future__ import annotations

from stream.analyse.rules.security.fallen import FallenRule
from tests.stream.analyse.rules.scenes import SceneTrack, play, track

RULE = FallenRule(name="hall", camera="c", pipeline="p", for_s=2.0)


def person(size: tuple[float, float], label: str = "person") -> list[SceneTrack]:
    return [track(300.0, 200.0, "t", label, size=size)]


UPRIGHT, LYING, SITTING = (30.0, 80.0), (80.0, 30.0), (45.0, 44.0)


def test_a_person_who_stood_and_then_lies_for_the_configured_time_is_reported_as_fallen_once() -> None:
    found = play(RULE.watch(640, 360), [*[person(UPRIGHT)] * 5, *[person(LYING)] * 30])
    assert [(at_s, one.summary) for at_s, one in found] == [(3.0, "person has lain in hall for 2.0 s")]


def test_a_person_who_gets_up_before_the_configured_time_is_not_reported_as_fallen() -> None:
    stumbles = [*[person(UPRIGHT)] * 5, *[person(LYING)] * 8, *[person(UPRIGHT)] * 5]
    assert play(RULE.watch(640, 360), stumbles * 3) == []


def test_a_wide_box_that_was_never_upright_is_not_reported_as_a_fall() -> None:
    assert play(RULE.watch(640, 360), [person(LYING)] * 50) == []


def test_a_person_who_sits_down_is_not_reported_as_fallen() -> None:
    assert play(RULE.watch(640, 360), [*[person(UPRIGHT)] * 5, *[person(SITTING)] * 50]) == []


def test_the_fallen_rule_ignores_vehicles_by_default() -> None:
    frames = [*[person(UPRIGHT, "car")] * 5, *[person(LYING, "car")] * 50]
    assert play(RULE.watch(640, 360), frames) == []
