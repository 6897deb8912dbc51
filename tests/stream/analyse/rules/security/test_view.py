"""Tests of the rule ``view``."""

from __future__ import annotations

from stream.analyse.analyser import Analyser
from stream.analyse.rules.security.view import ViewRule
from stream.analyse.tracking.tracker import ByteTracker
from tests.stream.analyse.results import result_at
from tests.stream.analyse.rules.scenes import Reports, scene

RULE = ViewRule(name="lens", camera="c", pipeline="p")


def play(rule: ViewRule, *views: str, step_s: float = 1.0) -> Reports:
    watch = rule.watch(640, 360)
    scenes = [scene(n * step_s, view=view) for n, view in enumerate(views)]
    return [(one.at_ns / 1e9, found) for one in scenes for found, _ in watch.observe(one, ())]


def test_a_bad_camera_view_is_reported_once_and_again_after_a_good_view() -> None:
    found = play(RULE, "", "black", "black", "tampered", "", "frozen")
    assert [at_s for at_s, _ in found] == [1.0, 5.0]
    assert [one.details["view"] for _, one in found] == ["black", "frozen"]
    assert found[0][1].summary == "camera c shows a black picture"


def test_a_bad_camera_view_must_last_for_the_configured_time() -> None:
    assert [at_s for at_s, _ in play(RULE.model_copy(update={"for_s": 3.0}), *["black"] * 6)] == [3.0]
    assert play(RULE.model_copy(update={"for_s": 3.0}), "black", "black", "", "black", "black") == []


def test_only_the_configured_states_of_the_camera_view_are_reported() -> None:
    assert play(RULE.model_copy(update={"states": ("tampered",)}), "black", "frozen", "unheard-of") == []


def test_a_bad_camera_view_within_the_cooldown_is_reported_when_the_cooldown_ends() -> None:
    rule = RULE.model_copy(update={"cooldown_s": 4.0})
    assert [at_s for at_s, _ in play(rule, "black", "", "black", "black", "black", "black")] == [0.0, 4.0]


def test_the_view_rule_states_why_it_reports_nothing() -> None:
    watch = RULE.model_copy(update={"for_s": 5.0}).watch(640, 360)
    watch.observe(scene(0.0), ())
    assert watch.scene_reasons(scene(0.0)) == ["the view is good"]
    watch.observe(bad := scene(1.0, view="black"), ())
    assert watch.scene_reasons(bad) == ["the view has been black for 0.0 s of 5 s"]


def test_a_bad_camera_view_makes_an_event_although_nothing_is_in_the_picture() -> None:
    analyser = Analyser([RULE], None, ByteTracker)
    assert analyser.step(result_at(0, 0.0)) == []
    (event,) = analyser.step(result_at(1, 1.0, view="tampered"))
    assert event.type == "sightline.camera.view"
    assert event.data.summary == "camera c has been tampered with"
    assert analyser.step(result_at(2, 2.0, view="tampered")) == []
