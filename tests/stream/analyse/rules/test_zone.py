"""Tests of the rule ``zone``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from stream.analyse.lasting import END_FRAMES
from stream.analyse.rule import SceneTrack
from stream.analyse.rules.zone import ZoneRule, ZoneWatch
from tests.stream.analyse.rules.scenes import scene, track

INSIDE, OUTSIDE = (150.0, 150.0), (250.0, 150.0)
STEP_S = 0.25


def watch(**settings: Any) -> ZoneWatch:
    """Return the state of a rule over the square from (100, 100) to (200, 200)."""
    corners = ((100, 100), (200, 100), (200, 200), (100, 200))
    polygon = tuple((x / 640, y / 360) for x, y in corners)
    return ZoneRule(name="yard", camera="c", pipeline="p", polygon=polygon, **settings).watch(640, 360)


def reported(state: ZoneWatch, tracks: Iterable[SceneTrack], first: int = 0) -> list[tuple[int, float]]:
    """Process scenes with one track each.

    Return the index of each scene with a happening, and the length of the visit in seconds.
    """
    found = []
    for n, one in enumerate(tracks, first):
        found += [(n, one[0].details["stayed_s"]) for one in state.observe(scene(n * STEP_S, one), ())]
    return found  # type: ignore[return-value]


def test_a_zone_visit_is_reported_once_when_it_has_lasted_for_the_dwell_time() -> None:
    assert reported(watch(dwell_s=1.0), [track(*INSIDE)] * 10) == [(4, 1.0)]


def test_a_box_that_flickers_on_the_zone_edge_makes_one_visit_and_a_return_makes_another() -> None:
    state = watch()
    flicker = [INSIDE, OUTSIDE, INSIDE, OUTSIDE, OUTSIDE, INSIDE]
    assert reported(state, [track(*place) for place in flicker]) == [(0, 0.0)]
    back = [*[OUTSIDE] * END_FRAMES, INSIDE]
    assert reported(state, [track(*place) for place in back], 100) == [(100 + END_FRAMES, 0.0)]


def test_a_zone_visit_that_reaches_the_dwell_time_during_the_cooldown_is_reported_afterwards() -> None:
    """The first visit is reported at 1 s. The second visit begins at 2 s; the cooldown ends at 4 s."""
    places = [*[INSIDE] * 5, *[OUTSIDE] * END_FRAMES, *[INSIDE] * 20]
    state = watch(dwell_s=1.0, cooldown_s=3.0)
    assert reported(state, [track(*place) for place in places]) == [(4, 1.0), (16, 2.0)]


def test_a_zone_visit_is_reported_when_its_track_gets_a_label_of_the_rule() -> None:
    tracks = [track(*INSIDE, label="car" if n > 7 else "truck") for n in range(10)]
    assert reported(watch(dwell_s=1.0, labels=("car",)), tracks) == [(8, 2.0)]
    doubtful = [track(*INSIDE, score=0.7 if n > 7 else 0.5) for n in range(10)]
    assert reported(watch(dwell_s=1.0, min_score=0.6), doubtful) == [(8, 2.0)]


def test_a_zone_visit_that_an_earlier_partition_owner_reported_is_not_reported_again() -> None:
    state = watch(dwell_s=1.0)
    assert state.observe(scene(0.0, track(*OUTSIDE)), ["t"]) == []  # reported by an earlier owner
    assert [state.observe(scene(n * STEP_S, track(*INSIDE)), ["t"] if n == 2 else ()) for n in range(1, 8)] == [
        []
    ] * 7
    leave = [state.observe(scene(n * STEP_S, track(*OUTSIDE)), ()) for n in range(8, 8 + END_FRAMES)]
    assert leave == [[]] * END_FRAMES
    back = [state.observe(scene(n * STEP_S, track(*INSIDE)), ()) for n in range(20, 25)]
    assert [one[1] for found in back for one in found] == [3]


def test_the_visit_number_of_a_track_starts_again_after_the_track_was_forgotten() -> None:
    state = watch()
    assert state.observe(scene(0.0, track(*INSIDE)), ["t"]) == []
    state.forget("t")
    ((happening, number),) = state.observe(scene(1.0, track(*INSIDE)), ())
    assert (happening.summary, number) == ("car in yard", 1)
