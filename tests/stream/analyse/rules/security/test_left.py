"""Tests of the rules ``left`` and ``removed``."""

from __future__ import annotations

from stream.analyse.rules.security.left import LeftRule
from stream.analyse.rules.security.removed import RemovedRule
from tests.stream.analyse.rules.scenes import play, track

LEFT = LeftRule(name="hall", camera="c", pipeline="p", for_s=4.0)
REMOVED = RemovedRule(name="museum", camera="c", pipeline="p", rested_s=4.0, for_s=2.0, labels=("vase",))
CASE = track(300.0, 200.0, "s", "suitcase", at_rest=True)
VASE = track(300.0, 200.0, "v", "vase", at_rest=True)


def person(x: float) -> list[object]:
    return [track(x, 180.0, "p", "person", size=(30.0, 80.0))]


def test_a_suitcase_that_stays_alone_is_reported_as_left_behind_once() -> None:
    near, far = [track(330.0, 170.0, "p", "person", size=(30.0, 80.0))], [track(500.0, 170.0, "p", "person")]
    found = play(LEFT.watch(640, 360), [*[[CASE, *near]] * 40, *[[CASE, *far]] * 40])
    assert [(at_s, one.track and one.track.name) for at_s, one in found] == [(12.0, "s")]


def test_an_owner_who_returns_in_time_prevents_the_report_of_a_suitcase_left_behind() -> None:
    near = [track(330.0, 170.0, "p", "person", size=(30.0, 80.0))]
    assert play(LEFT.watch(640, 360), [*[[CASE]] * 15, *[[CASE, *near]] * 15] * 3) == []


def test_a_moving_suitcase_is_not_reported_as_left_behind() -> None:
    assert play(LEFT.watch(640, 360), [[track(100.0 + 5 * n, 200.0, "s", "suitcase")] for n in range(60)]) == []


def test_an_object_that_disappears_from_its_place_is_reported_as_removed_once() -> None:
    found = play(REMOVED.watch(640, 360), [*[[VASE]] * 30, *[[]] * 30])
    assert [(at_s, one.summary) for at_s, one in found] == [(7.8, "vase removed from museum 2 s ago")]


def test_an_object_that_was_present_only_briefly_is_not_reported_as_removed() -> None:
    assert play(REMOVED.watch(640, 360), [*[[VASE]] * 10, *[[]] * 60]) == []


def test_a_hidden_object_is_not_reported_as_removed_while_somebody_stands_in_front() -> None:
    visitor = track(305.0, 190.0, "p", "person", size=(40.0, 90.0))
    hidden = [*[[VASE]] * 30, *[[visitor]] * 60]
    assert play(REMOVED.watch(640, 360), [*hidden, *[[VASE]] * 30]) == []
    assert len(play(REMOVED.watch(640, 360), [*hidden, *[[]] * 30])) == 1


def test_an_object_that_gets_another_track_name_is_not_reported_as_removed() -> None:
    other = track(302.0, 200.0, "w", "vase", at_rest=True)
    assert play(REMOVED.watch(640, 360), [*[[VASE]] * 30, *[[other]] * 60]) == []
