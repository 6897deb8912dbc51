"""Tests of the rule ``stopped``."""

from __future__ import annotations

from stream.analyse.rules.traffic.stopped import StoppedRule
from tests.stream.analyse.rules.scenes import play, track

RULE = StoppedRule(name="lane", camera="c", pipeline="p", for_s=2.0, labels=("car",))


def test_each_stop_of_an_object_that_lasts_for_the_configured_time_is_reported_once() -> None:
    moving = [[track(100.0 + 10 * n, 100.0)] for n in range(10)]
    standing = [[track(200.0, 100.0, at_rest=True)]] * 20
    found = play(RULE.watch(640, 360), [*moving, *standing, *moving, *standing])
    assert [at_s for at_s, _ in found] == [4.0, 10.0]
    assert found[0][1].summary == "car has stood still in lane for 2.0 s"


def test_a_stop_of_an_object_outside_the_polygon_is_not_reported() -> None:
    left = RULE.model_copy(update={"polygon": ((0.0, 0.0), (0.2, 0.0), (0.2, 1.0), (0.0, 1.0))})
    assert play(left.watch(640, 360), [[track(200.0, 100.0, at_rest=True)]] * 30) == []
    assert len(play(left.watch(640, 360), [[track(100.0, 100.0, at_rest=True)]] * 30)) == 1


def test_a_stopped_rule_over_the_whole_picture_draws_no_shape_into_its_evidence() -> None:
    assert RULE.shape == ()
