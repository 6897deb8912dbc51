"""Properties of the rules: no object counts twice, although detections are missing, tracks are lost or exchange their
names, and frame rates are low or uneven."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.contract.records import Box, Detection, Event
from stream.analyse.analyser import Analyser
from stream.analyse.crossing import BACKWARD, FORWARD
from stream.analyse.rule import CameraRule, SceneHappening
from stream.analyse.rules.line import LineRule
from stream.analyse.rules.security.tailgating import TailgatingRule
from stream.analyse.rules.traffic.section import SectionRule
from stream.analyse.rules.traffic.turning import TurningRule
from stream.analyse.rules.zone import ZoneRule
from stream.analyse.tracking.tracker import ByteTracker
from tests.stream.analyse.results import result_at
from tests.stream.analyse.rules.scenes import scene, track

OF: dict[str, Any] = {"camera": "c", "pipeline": "p"}
MIDDLE: dict[str, Any] = {"start": (0.5, 1.0), "end": (0.5, 0.0)}
LINE = LineRule(name="line", **OF, **MIDDLE)
ZONE = ZoneRule(name="zone", **OF, polygon=((0.4, 0.0), (0.6, 0.0), (0.6, 1.0), (0.4, 1.0)))
TAILGATING = TailgatingRule(name="door", **OF, **MIDDLE, within_s=30.0)
SECTION = SectionRule(
    name="bridge",
    **OF,
    first=((0.35, 0.0), (0.35, 1.0)),
    second=((0.65, 0.0), (0.65, 1.0)),
    distance_m=20.0,
    above_km_h=0.0,
)
TURNING = TurningRule(
    name="way", **OF, lines={"west": ((0.35, 0.0), (0.35, 1.0)), "east": ((0.65, 0.0), (0.65, 1.0))}
)
RULES = (LINE, ZONE, SECTION, TURNING)
SPEED_PX_S = 80.0
FIRST_PX, LAST_PX = 40.0, 600.0
CROSSES_S = (LAST_PX - FIRST_PX) / SPEED_PX_S
"""Time in seconds of a way through the picture of 640 pixels."""
FRAMES = 40
"""Usual number of frames of a way through the picture, for the choice of frames with a fault."""


UNEVEN = ((0.1,), (0.5,), (1.0,), (0.1, 0.2), (0.1, 0.5, 1.0))


@st.composite
def frame_times(draw: st.DrawFn, choices: Sequence[tuple[float, ...]] = UNEVEN) -> list[float]:
    """Draw the times in seconds of the frames while an object passes through the picture, in uneven intervals.

    At the lowest rate, the object is seen once in a second.
    """
    chance, at_s = draw(st.randoms(use_true_random=False)), 0.0
    intervals_s = draw(st.sampled_from(choices))
    times_s = []
    while at_s <= CROSSES_S:
        times_s.append(round(at_s, 3))
        at_s += chance.choice(intervals_s)
    return times_s


numbers = st.integers(1, FRAMES)


def x_at(at_s: float) -> float:
    return FIRST_PX + SPEED_PX_S * at_s


Places = Mapping[str, float]
"""Place of each visible track in a frame: the x of its centre by its name."""


def watched(rule: CameraRule, frames: Iterable[tuple[float, Places]]) -> list[SceneHappening]:
    """Return the happenings of a rule over frames at the given times."""
    state, found = rule.watch(640, 360), list[SceneHappening]()
    for at_s, places in frames:
        tracks = (track(x, 180.0, name) for name, x in sorted(places.items()))
        found += [one for one, _ in state.observe(scene(at_s, *tracks), ())]
    return found


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.type)
@given(times_s=frame_times())
@settings(max_examples=30)
def test_a_rule_reports_an_object_once_at_low_and_uneven_frame_rates(rule: CameraRule, times_s: list[float]) -> None:
    found = watched(rule, [(at_s, {"t": x_at(at_s)}) for at_s in times_s])
    assert len(found) == 1
    if rule.type == "section":
        assert found[0].details["speed_km_h"] == pytest.approx(20.0 / (192.0 / SPEED_PX_S) * 3.6, rel=0.01)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.type)
@given(times_s=frame_times(), missing=st.sets(numbers, max_size=20))
@settings(max_examples=30)
def test_a_rule_reports_an_object_at_most_once_if_frames_lack_its_detection(
    rule: CameraRule, times_s: list[float], missing: set[int]
) -> None:
    frames = [(at_s, {} if n in missing else {"t": x_at(at_s)}) for n, at_s in enumerate(times_s)]
    assert len(watched(rule, frames)) <= 1


@pytest.mark.parametrize("rule", [LINE, SECTION, TURNING], ids=lambda rule: rule.type)
@given(times_s=frame_times(), lost=st.sets(numbers, max_size=4))
@settings(max_examples=30)
def test_a_crossing_counts_at_most_once_if_the_track_is_lost_and_begins_again_with_another_name(
    rule: CameraRule, times_s: list[float], lost: set[int]
) -> None:
    frames = [(at_s, {f"t{sum(n >= at for at in lost)}": x_at(at_s)}) for n, at_s in enumerate(times_s)]
    assert len(watched(rule, frames)) <= 1


@given(times_s=frame_times(), lost=st.sets(numbers, max_size=4))
@settings(max_examples=30)
def test_each_new_track_of_an_object_whose_track_is_lost_is_reported_at_most_once_in_a_zone(
    times_s: list[float], lost: set[int]
) -> None:
    frames = [(at_s, {f"t{sum(n >= at for at in lost)}": x_at(at_s)}) for n, at_s in enumerate(times_s)]
    names = [one.track.name for one in watched(ZONE, frames) if one.track]
    assert len(names) == len(set(names))
    assert len(names) >= 1


@given(
    times_s=frame_times(),
    missing=st.sets(numbers, max_size=20),
    lost=st.sets(numbers, max_size=4),
)
@settings(max_examples=40)
def test_a_single_object_whose_track_is_lost_at_a_door_is_not_reported_as_tailgating(
    times_s: list[float], missing: set[int], lost: set[int]
) -> None:
    frames = [
        (at_s, {} if n in missing else {f"t{sum(n >= at for at in lost)}": x_at(at_s)})
        for n, at_s in enumerate(times_s)
    ]
    assert watched(TAILGATING, frames) == []


@given(times_s=frame_times(), swaps=st.sets(numbers, max_size=6), behind_px=st.integers(20, 200))
@settings(max_examples=40)
def test_swapped_identities_of_two_objects_do_not_change_the_net_count_of_a_line(
    times_s: list[float], swaps: set[int], behind_px: int
) -> None:
    """A track that jumps back over the line counts backward, and so takes back its count."""
    frames = []
    for n, at_s in enumerate(times_s):
        places = x_at(at_s), x_at(at_s) - behind_px
        swapped = sum(n >= at for at in swaps) % 2
        frames.append((at_s, {"a": places[swapped], "b": places[1 - swapped]}))
    frames += [(CROSSES_S + n, {"a": 620.0, "b": 610.0}) for n in range(1, 4)]
    found = [one.details["direction"] for one in watched(LINE, frames)]
    assert found.count(FORWARD) - found.count(BACKWARD) == 2


@dataclass(frozen=True)
class Pass:
    """A way of an object through the picture: its height in the picture, and the frames without a detection."""

    y: float
    missing: frozenset[int]


def events(rules: Sequence[CameraRule], times_s: Sequence[float], passes: Sequence[Pass]) -> list[Event]:
    """Return the events of objects that a detector finds, through the real tracker."""
    analyser = Analyser(rules, None, ByteTracker)
    found = list[Event]()
    for seq, at_s in enumerate(times_s):
        boxes = [
            Box(x_at(at_s) - 30.0, one.y - 20.0, x_at(at_s) + 30.0, one.y + 20.0)
            for one in passes
            if seq not in one.missing
        ]
        cars = [Detection(box=box, label="car", class_id=1, score=0.9) for box in boxes]
        found += analyser.step(result_at(seq, at_s, *cars))
    return found


@given(
    times_s=frame_times([(0.1,), (0.3,), (0.1, 0.2, 0.3)]),
    flicker=st.tuples(*(st.sets(st.integers(4, FRAMES), max_size=12) for _ in range(2))),
)
@settings(max_examples=10)
def test_two_tracked_objects_side_by_side_are_counted_once_each_despite_flicker_and_uneven_frames(
    times_s: list[float], flicker: tuple[set[int], set[int]]
) -> None:
    """No two frames in a row lack the detection of an object, so that its track is not lost."""
    passes = [
        Pass(y, frozenset(n for n in missing if n - 1 not in missing))
        for y, missing in zip((100.0, 260.0), flicker, strict=True)
    ]
    found = events([LINE, ZONE], times_s, passes)
    for rule in (LINE, ZONE):
        tracks = [one.data.track for one in found if one.data.rule == rule.name]
        assert len(set(tracks)) == len(tracks) == 2
