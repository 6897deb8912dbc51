"""Tests of tracks that have returned: their labels, and the rules and measures that continue or begin again."""

from __future__ import annotations

import pytest

from ingest.contract.records import Attribute, Box
from ingest.site import AppearanceConfig
from stream.analyse.measures.meters import values
from stream.analyse.rules.security.running import RunningRule
from stream.analyse.rules.security.tailgating import TailgatingRule
from stream.analyse.rules.traffic.red_light import RedLightRule
from stream.analyse.rules.traffic.section import SectionRule
from stream.analyse.rules.traffic.wrong_way import WrongWayRule
from stream.analyse.tracking.paths import TRACK_IDLE_S
from stream.analyse.tracking.stationary import FrameView, StationaryTracks
from stream.analyse.tracking.tracker import Track
from tests.stream.analyse.tracking.lostpeople import (
    BLUE,
    FPS,
    GREEN,
    HALL,
    LINE,
    OF,
    RED,
    SETTINGS,
    ZONE,
    Watched,
    person,
)


def test_the_label_attributes_and_number_of_frames_of_a_returning_track_continue() -> None:
    watched = Watched()
    wears = [Attribute(name="wears", label=label, score=0.9) for label in ("coat", "shirt")]
    before = person(200.0, RED).model_copy(update={"attributes": (wears[0],)})
    after = person(200.0, RED).model_copy(update={"attributes": (wears[1],)})
    watched.lose(before)
    watched.see(after, frames=2)
    watched.see(after.model_copy(update={"label": "bus"}), frames=3)
    assert watched.analyser.scene
    (shown,) = watched.analyser.scene.tracks
    assert (shown.label, shown.attributes["wears"].label) == ("person", "coat")
    (target,) = watched.analyser._tracker._targets  # type: ignore[attr-defined]
    assert target.track.frames == 9 + 4


def test_a_track_that_returns_twice_has_the_frames_of_all_its_visits() -> None:
    watched = Watched()
    for _ in range(3):
        watched.lose(person(200.0, RED))
    watched.see(person(200.0, RED), frames=10)
    (target,) = watched.analyser._tracker._targets  # type: ignore[attr-defined]
    assert (target.track.name, target.track.frames) == ("1-1-0", 4 * 9)


@pytest.mark.parametrize("hidden_s", [4.0, TRACK_IDLE_S + 5.0])
def test_a_line_crossing_counts_once_if_the_track_returns_before_or_after_the_rules_would_forget_it(
    hidden_s: float,
) -> None:
    watched = Watched(LINE)
    watched.walk(200.0, 400.0, RED)
    watched.wait(hidden_s)
    watched.walk(420.0, 560.0, RED)
    assert [one.data.rule for one in watched.events] == ["line"]


def test_a_track_that_returns_on_the_other_side_of_a_line_has_crossed_it_once() -> None:
    watched = Watched(LINE)
    (name,) = watched.walk(150.0, 290.0, RED)
    watched.wait(5.0)
    watched.walk(360.0, 500.0, RED)
    (event,) = watched.events
    assert (event.data.track, event.data.details["direction"]) == (name, "forward")
    assert min(x for x, _ in event.data.overlay.trail) > 350.0


def test_the_dwell_time_of_a_zone_continues_while_the_track_is_hidden_and_is_reported_once() -> None:
    watched = Watched(ZONE)
    (name,) = watched.see(person(200.0, RED), frames=6 * FPS)
    watched.wait(15.0)
    watched.see(person(260.0, RED), frames=20 * FPS)
    (event,) = watched.events
    assert event.data.track == name
    assert float(event.data.details["stayed_s"]) == pytest.approx(21.0, abs=0.5)  # type: ignore[arg-type]


@pytest.mark.parametrize(("settings", "entries"), [(SETTINGS, 1.0), (None, 2.0)])
def test_a_zone_measure_counts_a_hidden_person_as_one_entry_and_one_stay(
    settings: AppearanceConfig | None, entries: float
) -> None:
    watched = Watched(settings=settings, measures=[HALL])
    watched.see(person(200.0, RED), frames=6 * FPS)
    watched.wait(12.0)
    watched.see(person(260.0, RED), frames=10 * FPS)
    watched.walk(260.0, 635.0, RED)
    watched.wait(70.0)
    minutes = [values(one.tally, HALL) for one in watched.analyser.closed_minutes()]
    assert sum(one.get("person.entries", 0.0) for one in minutes) == entries
    if settings:
        (dwell_s,) = [one["dwell_s.mean"] for one in minutes if "dwell_s.mean" in one]
        assert dwell_s == pytest.approx(31.6, abs=0.5)


def test_events_of_a_returning_track_belong_to_its_incident() -> None:
    watched = Watched(LINE)
    watched.walk(200.0, 400.0, RED)
    watched.wait(15.0)
    watched.walk(400.0, 200.0, RED)
    first, second = watched.events
    assert first.data.incident == second.data.incident
    assert first.id != second.id


def test_rules_about_movements_and_tailgating_do_not_use_the_path_out_of_sight() -> None:
    rules = (
        TailgatingRule(name="door", **OF, start=(0.5, 1.0), end=(0.5, 0.0), within_s=30.0),
        WrongWayRule(name="way", **OF, start=(0.0, 0.5), end=(1.0, 0.5), window_s=10.0, for_s=0.0),
        RunningRule(name="run", **OF, above=0.2, window_s=10.0),
    )
    watched = Watched(*rules)
    stander = person(600.0, BLUE, y=60.0)
    watched.walk(360.0, 200.0, GREEN, stander)  # crosses the line of the door
    crossed = len(watched.events)
    watched.see(person(200.0, GREEN), stander, frames=10 * FPS)
    (red, *_) = set(watched.see(person(420.0, RED), person(200.0, GREEN), stander, frames=10 * FPS))
    watched.wait(3.0, person(200.0, GREEN), stander)
    names = watched.see(person(230.0, RED, y=300.0), person(200.0, GREEN), stander, frames=5 * FPS)
    assert red in names
    assert [one.data.rule for one in watched.events[crossed:]] == []


@pytest.mark.parametrize(("hidden_from", "events"), [(320.0, 1), (375.0, 0)])
def test_a_section_is_measured_if_the_crossings_of_both_lines_were_seen(hidden_from: float, events: int) -> None:
    rule = SectionRule(
        name="bridge",
        **OF,
        first=((0.4, 0.0), (0.4, 1.0)),
        second=((0.6, 0.0), (0.6, 1.0)),
        distance_m=20.0,
        above_km_h=0.0,
    )
    watched = Watched(rule)
    watched.walk(150.0, hidden_from, RED)
    watched.wait(4.0)
    watched.walk(hidden_from + 10.0, 560.0, RED)
    assert len(watched.events) == events


def test_a_crossing_at_a_red_light_counts_only_if_it_was_seen() -> None:
    rule = RedLightRule(name="red", **OF, sensor="light", above=0.5, start=LINE.start, end=LINE.end)
    watched = Watched(rule)
    watched.walk(150.0, 290.0, RED)
    watched.wait(5.0)
    (name,) = watched.walk(360.0, 500.0, RED)
    assert [one for one in watched.analyser.take_signals() if one.candidates] == []
    watched.walk(500.0, 200.0, RED)
    (candidate,) = [candidate for one in watched.analyser.take_signals() for candidate in one.candidates]
    assert candidate.event.data.track == name == "1-1-0"


def test_a_stationary_track_that_returns_continues_as_the_new_track_object() -> None:
    box, still = Box(100.0, 100.0, 160.0, 200.0), StationaryTracks()
    view = FrameView((), (box,), (box,))
    before, after = Track("t", box, 0.9), Track("t", box, 0.8)
    still.seen(before, view, 0.0, 0)
    still.seen(after, view, 3.0, 3 * 10**9)
    (held,) = still.hold(["t"], 4.0)
    assert held is after
