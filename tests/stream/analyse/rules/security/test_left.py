"""Tests of the rules ``left`` and ``removed``."""

from __future__ import annotations

from ingest.site.hours import WeeklyHours
from stream.analyse.rules.security.left import LeftRule
from stream.analyse.rules.security.removed import MAX_PLACES, RemovedRule
from tests.stream.analyse.rules.scenes import play, scene, track

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


def test_a_suitcase_left_behind_is_not_reported_again_after_a_passer_by() -> None:
    near = [track(330.0, 170.0, "p", "person", size=(30.0, 80.0))]
    found = play(LEFT.watch(640, 360), [*[[CASE]] * 40, *[[CASE, *near]] * 10, *[[CASE]] * 40])
    assert [at_s for at_s, _ in found] == [4.0]


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
    assert len(play(REMOVED.watch(640, 360), [*[[VASE]] * 30, *[[other]] * 60, *[[]] * 60])) == 1


def test_two_objects_that_disappear_together_are_two_incidents() -> None:
    other = track(500.0, 200.0, "w", "vase", at_rest=True)
    found = play(REMOVED.watch(640, 360), [*[[VASE, other]] * 30, *[[]] * 30])
    assert len({one.occurrence for _, one in found}) == len(found) == 2


def test_missing_frames_do_not_make_an_object_count_as_removed() -> None:
    state = REMOVED.watch(640, 360)
    assert play(state, [[VASE]] * 30) == []
    assert state.observe(scene(60.0, gap_s=54.0), ()) == []
    renamed = track(300.0, 200.0, "w", "vase", at_rest=True)
    assert state.observe(scene(60.2, renamed, gap_s=0.2), ()) == []
    assert state.observe(scene(64.0, renamed, gap_s=0.2), ()) == []


def test_an_object_removed_beside_a_person_whose_box_overlaps_it_slightly_is_reported() -> None:
    neighbour = track(334.0, 200.0, "n", "person")
    assert len(play(REMOVED.watch(640, 360), [*[[VASE, neighbour]] * 30, *[[neighbour]] * 30])) == 1


def test_an_object_that_is_not_detected_for_a_moment_counts_as_resting_all_the_time() -> None:
    flicker = [*[[VASE]] * 15, [], *[[VASE]] * 10]
    assert len(play(REMOVED.watch(640, 360), [*flicker, *[[]] * 30])) == 1


def test_an_object_removed_before_the_active_hours_of_the_rule_is_not_reported_when_the_hours_begin() -> None:
    rule = REMOVED.model_copy(update={"hours": (WeeklyHours(start="08:01", end="09:00"),)})
    assert play(rule.watch(640, 360), [*[[VASE]] * 30, *[[]] * 330]) == []


def test_the_number_of_resting_objects_that_the_rule_remembers_is_limited() -> None:
    state = REMOVED.model_copy(update={"labels": ()}).watch(640, 360)
    for n in range(MAX_PLACES + 50):
        state.observe(scene(5.0 * n, track(300.0, 200.0, f"a{n}", f"label{n}", at_rest=True)), ())
        state.observe(scene(5.0 * n + 4.5, track(300.0, 200.0, f"a{n}", f"label{n}", at_rest=True)), ())
    assert len(state._places) == MAX_PLACES


def test_an_owner_whose_track_waits_for_reidentification_prevents_the_report_of_a_suitcase() -> None:
    owner = track(330.0, 170.0, "p", "person", size=(30.0, 80.0))
    assert play(LEFT.watch(640, 360), [[CASE]] * 40, waiting=(owner,)) == []
    assert len(play(LEFT.watch(640, 360), [[CASE]] * 40)) == 1


def test_a_visitor_whose_track_waits_for_reidentification_may_hide_an_object() -> None:
    state, visitor = REMOVED.watch(640, 360), track(305.0, 190.0, "p", "person", size=(40.0, 90.0))
    assert play(state, [[VASE]] * 30) == []
    for n in range(30, 60):
        assert state.observe(scene(0.2 * n, waiting=(visitor,)), ()) == []
