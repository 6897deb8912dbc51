"""Tests of new tracks that wait until they are compared with lost tracks, and of the rules that see them."""

from __future__ import annotations

from typing import Any

import pytest

from ingest.contract.records import Attribute, Box, Result
from stream.analyse.measures.meters import ZoneMeter, values
from stream.analyse.rule import Scene
from stream.analyse.rules.count import CountRule
from stream.analyse.rules.products.jam import JamRule
from stream.analyse.rules.security.unattended import UnattendedRule
from stream.analyse.rules.traffic.red_light import RedLightRule
from stream.analyse.tracking.paths import TRACK_IDLE_S
from stream.analyse.tracking.tracker import Track
from stream.analyse.tracking.waiting import EarlierFrame, WaitingTracks
from stream.analyse.verdict import untracked
from tests.stream.analyse.recording import RecordingRule
from tests.stream.analyse.tracking.lostpeople import (
    BLUE,
    COVERED,
    FPS,
    GREEN,
    HALL,
    LINE,
    LOOK,
    MEASURE,
    OF,
    RED,
    STILL,
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
    (before,) = watched.lose(person(200.0, RED))
    assert [watched.see(person(300.0, COVERED)) for _ in range(4)] == [[], [], [], []]
    (reason,) = untracked(watched.analyser, result(watched.seq, person(300.0, COVERED)))
    assert reason.reason == "may be a lost track: waits up to 1 s for a better view"
    assert watched.see(person(300.0, RED)) == [before]


def test_a_person_who_is_too_small_for_an_embedding_at_first_is_compared_later() -> None:
    watched = Watched()
    (before,) = watched.lose(person(200.0, RED))
    small = person(300.0, None).model_copy(update={"attributes": (Attribute(name=LOOK, missing="small"),)})
    assert watched.see(small, frames=3) == []
    assert watched.see(person(300.0, RED)) == [before]


def test_a_person_who_is_missed_in_a_frame_while_waiting_is_still_compared() -> None:
    watched = Watched()
    (before,) = watched.lose(person(200.0, RED))
    watched.see(person(300.0, COVERED), frames=2)
    watched.see()
    assert watched.see(person(300.0, RED)) == [before]


def test_a_new_person_waits_for_at_most_a_second_and_not_at_all_at_the_edge_or_without_a_lost_track() -> None:
    watched = Watched()
    assert watched.see(person(200.0, COVERED), frames=2) != []
    watched.lose(person(200.0, RED))
    assert watched.see(person(22.0, COVERED), frames=2) != []
    watched.wait(5.0)
    assert watched.see(person(300.0, COVERED), frames=1 + FPS) == []
    assert len(watched.see(person(300.0, COVERED))) == 1


@pytest.mark.parametrize(
    ("missing", "waits"), [("small", True), ("unsure", True), ("limit", False), ("no_model", False)]
)
def test_a_new_person_waits_only_for_an_embedding_that_a_better_view_can_give(missing: str, waits: bool) -> None:
    watched = Watched()
    watched.lose(person(200.0, RED))
    without = person(300.0, None).model_copy(update={"attributes": (Attribute(name=LOOK, missing=missing),)})
    assert (watched.see(without, frames=3) == []) == waits


def test_a_person_beside_an_untracked_person_who_looks_alike_waits_until_the_other_is_gone() -> None:
    watched = Watched()
    (before,) = watched.lose(person(200.0, RED))
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


@pytest.mark.parametrize(
    "last",
    [
        result(10**3, **STILL, withheld={"still": 900}),
        result(0, epoch=2),
        result(0, epoch=2, **STILL),
        result(0, epoch=2, outcome="shed", reason="stale"),
    ],
)
def test_a_long_time_without_motion_or_a_new_epoch_ends_a_wait(last: Result) -> None:
    watched = with_a_lost_person(LINE)
    cross_the_line(watched)
    events = watched.analyser.step(last)
    assert [(one.data.rule, one.data.seq, one.data.epoch) for one in events] == [("line", watched.seq, 1)]


def test_a_crossing_of_a_track_that_waits_until_a_new_epoch_counts_in_the_last_minute_of_its_epoch() -> None:
    watched = with_a_lost_person(measures=[MEASURE])
    cross_the_line(watched)
    watched.step(result(0, epoch=2))
    (minute,) = watched.analyser.closed_minutes()
    assert (minute.tally.closed_by, values(minute.tally, MEASURE)) == ((f"1-{watched.seq}",), {"person.forward": 1.0})
    assert measured(watched, MEASURE) == {}


def test_a_still_frame_soon_after_does_not_end_a_wait() -> None:
    watched = with_a_lost_person(LINE)
    first = cross_the_line(watched)
    watched.seq += 1
    watched.step(result(watched.seq, **STILL))
    assert watched.events == []
    watched.see(person(350.0, RED))
    assert [(one.data.seq, one.data.track) for one in watched.events] == [(first + 4, "1-1-0")]


def test_a_rule_gets_the_frames_of_a_track_that_waited_each_with_this_track_only_and_under_its_final_name() -> None:
    watched = with_a_lost_person(RecordingRule(name="r", **OF))
    box = person(300.0, COVERED).box
    for n, score in enumerate((0.9, 0.8, 0.7)):
        stands: dict[str, Any] = {"motion": (), "resting": (box,), "looked_at": (box,)} if n == 2 else {}
        covered = person(300.0, COVERED).model_copy(update={"score": score})
        watched.seq += 1
        watched.step(result(watched.seq, covered, person(500.0, BLUE), **stands))
    RecordingRule.SCENES.clear()
    watched.see(person(300.0, RED), person(500.0, BLUE))
    *earlier, last = RecordingRule.SCENES
    assert [(scene.frame, scene.waiting) for scene in earlier] == [(f"1-{watched.seq - n}", ()) for n in (2, 1)]
    tracks = [track for scene in earlier for track in scene.tracks]
    assert [(one.name, one.score, one.at_rest) for one in tracks] == [("1-1-0", 0.8, False), ("1-1-0", 0.7, True)]
    assert {track.name for track in last.tracks} > {"1-1-0"}


def test_a_crossing_while_waiting_in_a_larger_picture_has_pixels_of_its_own_frame() -> None:
    watched = with_a_lost_person(LINE)
    way = [(280.0, COVERED), (290.0, COVERED), (310.0, COVERED), (330.0, COVERED), (350.0, COVERED), (350.0, RED)]
    for x, look in way:
        small = person(x, look)
        box = Box(*(2 * edge for edge in small.box))
        watched.seq += 1
        watched.step(result(watched.seq, small.model_copy(update={"box": box}), width=1280, height=720))
    (event,) = watched.events
    assert event.data.overlay.shape == ((640.0, 720.0), (640.0, 0.0))
    assert event.data.overlay.box == Box(660.0, 260.0, 740.0, 460.0)


def test_the_name_that_a_returning_track_had_while_it_waited_is_forgotten_without_an_end() -> None:
    watched = with_a_lost_person()
    watched.wait(TRACK_IDLE_S)
    watched.see(person(300.0, COVERED), frames=3)
    watched.see(person(300.0, RED), frames=15 * FPS)
    assert watched.ended == []


@pytest.mark.parametrize(("way", "reason"), [((300.0,) * 5, "lost"), ((545.0, 560.0, 575.0, 590.0, 604.0), "left")])
def test_a_track_that_disappears_while_it_waits_ends_once_after_the_usual_time(
    way: tuple[float, ...], reason: str
) -> None:
    watched = with_a_lost_person()
    for x in way:
        watched.see(person(x, COVERED))
    name = f"1-{watched.seq - 3}-0"
    watched.wait(TRACK_IDLE_S)
    assert watched.ended == []
    watched.wait(1.0)
    assert watched.ended == [(name, reason)]


def test_tracks_end_their_waits_in_the_order_in_which_they_began() -> None:
    waits, scene = WaitingTracks(), Scene("1-0", 0, 0, 640, 360, "classified", ())
    for name in ("b", "a", "b", "c"):
        waits.note(Track(name, person(300.0, None).box, 0.9), EarlierFrame(result(0), scene, 0.0))
    assert waits.names == {"a", "b", "c"}
    assert [(one.first_name, len(one.frames)) for one in waits.end({"c"})] == [("b", 2), ("a", 1)]
    assert waits.names == {"c"}


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


def test_the_earlier_frames_of_a_track_that_waited_do_not_interrupt_a_rule_about_visible_objects() -> None:
    count = CountRule(name="count", **OF, polygon=WHOLE, at_least=2, for_s=0.4)
    watched = Watched(count, measures=[HALL])
    others = person(100.0, BLUE, y=240.0), person(500.0, GREEN)
    watched.see(person(100.0, RED, y=60.0), *others, frames=10)
    watched.wait(5.0, *others)
    occupied_s = measured(watched, HALL)["occupied_s"]
    watched.see(*others, person(300.0, COVERED), frames=6)
    watched.see(*others, person(300.0, RED), frames=4)
    assert [one.data.rule for one in watched.events] == ["count"]
    assert measured(watched, HALL)["occupied_s"] == pytest.approx(occupied_s + (2 * 2 + 8 * 3) / FPS)


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


@pytest.mark.parametrize("removed", [False, True])
def test_a_red_light_crossing_of_a_track_that_waits_until_a_new_epoch_goes_out_once_unless_its_rule_is_removed(
    removed: bool,
) -> None:
    """The first frame of the new epoch is shed, so the crossing goes out with the next one."""
    joined: dict[str, Any] = {**OF, "sensor": "light", "above": 0.5}
    rule = RedLightRule(name="red", **joined, start=LINE.start, end=LINE.end)
    watched = with_a_lost_person(rule)
    first = cross_the_line(watched)
    watched.analyser.take_signals()
    watched.step(result(0, epoch=2, outcome="shed", reason="stale"))
    if removed:
        watched.analyser.use([], None)
        watched.step(result(1, epoch=2))
        watched.analyser.use([rule], None)
    for seq in (2, 3):
        watched.step(result(seq, epoch=2))
    signals = watched.analyser.take_signals()
    found = [(one.epoch, one.seq, candidate.event.data) for one in signals for candidate in one.candidates]
    sent = [(epoch, seq, data.epoch, data.seq) for epoch, seq, data in found]
    assert sent == ([] if removed else [(2, 2, 1, first + 4)])


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
