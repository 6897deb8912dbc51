"""Tests of new tracks that wait until they are compared with lost tracks, and of the rules that see them."""

from __future__ import annotations

from typing import Any

import pytest

from ingest.contract.records import Attribute
from stream.analyse.measures.meters import ZoneMeter, values
from stream.analyse.rules.count import CountRule
from stream.analyse.rules.products.jam import JamRule
from stream.analyse.rules.security.unattended import UnattendedRule
from stream.analyse.rules.traffic.red_light import RedLightRule
from stream.analyse.verdict import untracked
from tests.stream.analyse.tracking.lostpeople import (
    COVERED,
    FPS,
    HALL,
    LINE,
    LOOK,
    MEASURE,
    OF,
    RED,
    WHOLE,
    ZONE,
    Watched,
    cross_the_line,
    measured,
    person,
    result,
    with_a_lost_person,
)


def test_a_person_who_is_partly_covered_at_first_is_reported_when_the_view_is_better() -> None:
    watched = Watched()
    (before,) = watched.see(person(200.0, RED), frames=10)
    watched.wait(5.0)
    assert [watched.see(person(300.0, COVERED)) for _ in range(4)] == [[], [], [], []]
    (reason,) = untracked(watched.analyser, result(watched.seq, person(300.0, COVERED)))
    assert reason.reason == "may be a lost track: waits up to 1 s for a better view"
    assert watched.see(person(300.0, RED)) == [before]


def test_a_person_who_is_too_small_for_an_embedding_at_first_is_compared_later() -> None:
    watched = Watched()
    (before,) = watched.see(person(200.0, RED), frames=10)
    watched.wait(5.0)
    small = person(300.0, None).model_copy(update={"attributes": (Attribute(name=LOOK, missing="small"),)})
    assert watched.see(small, frames=3) == []
    assert watched.see(person(300.0, RED)) == [before]


def test_a_person_who_is_missed_in_a_frame_while_waiting_is_still_compared() -> None:
    watched = Watched()
    (before,) = watched.see(person(200.0, RED), frames=10)
    watched.wait(5.0)
    watched.see(person(300.0, COVERED), frames=2)
    watched.see()
    assert watched.see(person(300.0, RED)) == [before]


def test_a_new_person_waits_for_at_most_a_second_and_not_at_all_at_the_edge_or_without_a_lost_track() -> None:
    watched = Watched()
    assert watched.see(person(200.0, COVERED), frames=2) != []
    watched.see(person(200.0, RED), frames=10)
    watched.wait(5.0)
    assert watched.see(person(22.0, COVERED), frames=2) != []
    watched.wait(5.0)
    assert watched.see(person(300.0, COVERED), frames=1 + FPS) == []
    assert len(watched.see(person(300.0, COVERED))) == 1


@pytest.mark.parametrize(
    ("missing", "waits"), [("small", True), ("unsure", True), ("limit", False), ("no_model", False)]
)
def test_a_new_person_waits_only_for_an_embedding_that_a_better_view_can_give(missing: str, waits: bool) -> None:
    watched = Watched()
    watched.see(person(200.0, RED), frames=10)
    watched.wait(5.0)
    without = person(300.0, None).model_copy(update={"attributes": (Attribute(name=LOOK, missing=missing),)})
    assert (watched.see(without, frames=3) == []) == waits


def test_a_person_beside_an_untracked_person_who_looks_alike_waits_until_the_other_is_gone() -> None:
    watched = Watched()
    (before,) = watched.see(person(200.0, RED), frames=10)
    watched.wait(5.0)
    watched.see(person(150.0, RED))
    assert watched.see(person(150.0, RED), person(450.0, RED)) == []
    assert watched.see(person(150.0, RED)) == [before]


def test_a_person_who_crosses_a_line_while_waiting_is_counted_in_the_frame_of_the_crossing() -> None:
    watched = with_a_lost_person(LINE, measures=[MEASURE])
    first = cross_the_line(watched)
    assert watched.events == []
    watched.see(person(370.0, COVERED), frames=4)
    (event,) = watched.events
    assert (event.data.seq, event.data.track) == (first + 4, f"1-{first + 1}-0")
    assert event.data.overlay.box == person(350.0, None).box
    assert measured(watched, MEASURE)["person.forward"] == 1.0


def test_a_person_who_crosses_a_line_while_waiting_and_is_then_recognised_is_counted_once() -> None:
    watched = with_a_lost_person(LINE)
    first = cross_the_line(watched)
    watched.see(person(370.0, RED), frames=4)
    (event,) = watched.events
    assert (event.data.seq, event.data.track) == (first + 4, "1-1-0")


def test_an_object_that_disappears_while_it_waits_is_reported_and_measured() -> None:
    watched = with_a_lost_person(LINE, ZONE.model_copy(update={"dwell_s": 0.5}), measures=[MEASURE, HALL])
    watched.events.clear()
    first = cross_the_line(watched)
    entries = measured(watched, HALL)["person.entries"]
    watched.wait(2.0)
    assert [(one.data.rule, one.data.seq - first) for one in watched.events] == [("line", 4), ("zone", 4)]
    assert measured(watched, MEASURE)["person.forward"] == 1.0
    assert measured(watched, HALL)["person.entries"] == entries + 1.0
    watched.wait(15.0)
    minutes = [values(one.tally, HALL) for one in watched.analyser.closed_minutes() if one.measure == "hall"]
    assert sum(one.get("person.lost", 0.0) for one in [*minutes, measured(watched, HALL)]) == 1.0


@pytest.mark.parametrize("last", ["still", "epoch"])
def test_a_still_frame_or_a_new_epoch_ends_a_wait(last: str) -> None:
    watched = with_a_lost_person(LINE)
    cross_the_line(watched)
    then = result(watched.seq + 10 * FPS).model_copy(
        update={"outcome": "empty", "motion": (), "withheld": {"still": 10 * FPS - 1}}
    )
    events = watched.analyser.step(then if last == "still" else result(0, epoch=2))
    assert [(one.data.rule, one.data.seq, one.data.epoch) for one in events] == [("line", watched.seq, 1)]


def test_a_switch_of_the_configuration_ends_a_wait() -> None:
    watched = with_a_lost_person(LINE)
    cross_the_line(watched)
    watched.analyser.use([LINE], None)
    watched.see(person(370.0, COVERED))
    assert [one.data.rule for one in watched.events] == ["line"]


def test_rules_about_visible_objects_see_a_waiting_person() -> None:
    count = CountRule(name="count", **OF, polygon=WHOLE, at_least=1, for_s=0.4)
    watched = Watched(count, measures=[HALL])
    watched.see(person(100.0, RED, y=60.0), frames=2)  # too few frames to be counted
    watched.wait(5.0)
    watched.see(person(300.0, COVERED), frames=4)
    (event,) = watched.events
    assert (event.data.rule, event.data.seq) == ("count", watched.seq)
    assert watched.analyser.scene is not None
    assert watched.analyser.scene.tracks == ()
    (meter,) = watched.analyser._meters
    assert isinstance(meter, ZoneMeter)
    assert meter._present == 1


def test_a_waiting_person_attends_a_zone_and_stops_a_jam() -> None:
    joined: dict[str, Any] = {**OF, "sensor": "door", "above": 0.5, "for_s": 5.0}
    jam = JamRule(name="jam", **joined, start=LINE.start, end=LINE.end)
    watched = with_a_lost_person(UnattendedRule(name="alone", **joined, polygon=WHOLE), jam)
    watched.analyser.take_signals()
    first = cross_the_line(watched)
    begun_ns = result(first + 1).captured_ns
    sent = {(one.rule, candidate.since_ns) for one in watched.analyser.take_signals() for candidate in one.candidates}
    assert all(since_ns < begun_ns for rule, since_ns in sent if rule == "alone")
    watched.see(person(370.0, COVERED), frames=FPS)
    assert "alone" not in {one.rule for one in watched.analyser.take_signals() if one.candidates}
    watched.see(person(370.0, COVERED), frames=6 * FPS)
    sent = {(one.rule, candidate.since_ns) for one in watched.analyser.take_signals() for candidate in one.candidates}
    assert {rule for rule, _ in sent} == {"jam"}
    assert all(since_ns > begun_ns for _, since_ns in sent)


def test_a_crossing_at_a_red_light_while_waiting_is_a_candidate_with_the_time_of_the_crossing() -> None:
    joined: dict[str, Any] = {**OF, "sensor": "light", "above": 0.5}
    watched = with_a_lost_person(RedLightRule(name="red", **joined, start=LINE.start, end=LINE.end))
    watched.analyser.take_signals()
    first = cross_the_line(watched)
    watched.see(person(370.0, COVERED), frames=4)
    (one,) = [one for one in watched.analyser.take_signals() if one.candidates]
    (candidate,) = one.candidates
    assert one.seq > first + 4 == candidate.event.data.seq
    assert result(first + 2).captured_ns < candidate.since_ns < result(first + 3).captured_ns


def test_a_red_light_crossing_of_a_track_that_waits_until_a_new_epoch_goes_out_with_the_next_signal() -> None:
    joined: dict[str, Any] = {**OF, "sensor": "light", "above": 0.5}
    watched = with_a_lost_person(RedLightRule(name="red", **joined, start=LINE.start, end=LINE.end))
    first = cross_the_line(watched)
    watched.analyser.take_signals()
    watched.analyser.step(result(0, epoch=2))
    watched.analyser.step(result(1, epoch=2))
    found = [
        (one.epoch, candidate.event.data) for one in watched.analyser.take_signals() for candidate in one.candidates
    ]
    assert [(epoch, data.epoch, data.seq) for epoch, data in found] == [(2, 1, first + 4)]


def test_the_votes_of_all_frames_in_which_a_track_waited_count_after_its_return() -> None:
    watched = Watched()
    coat, shirt = (Attribute(name="wears", label=label, score=0.9) for label in ("coat", "shirt"))
    watched.see(person(200.0, RED).model_copy(update={"attributes": (coat,)}), frames=3)
    watched.wait(5.0)
    watched.see(person(300.0, COVERED).model_copy(update={"attributes": (shirt,)}), frames=5)
    watched.see(person(300.0, RED).model_copy(update={"attributes": (shirt,)}))
    assert watched.analyser.scene
    (shown,) = watched.analyser.scene.tracks
    assert shown.name == "1-1-0"
    assert shown.attributes["wears"].label == "shirt"
