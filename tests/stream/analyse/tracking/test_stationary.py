"""Tests of stationary tracks, which continue while nothing moves and no model examines their regions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pytest

from ingest.contract.codec import decode_json
from ingest.contract.records import MAX_RESTING, Attribute, Box, Detection, Event, Result
from ingest.kafka.memorylog import MemoryLog
from ingest.site import CameraConfig, PipelineConfig
from ingest.site.topic.view import Config
from stream.analyse.analyser import Analyser
from stream.analyse.rule import CameraRule
from stream.analyse.rules.line import LineRule
from stream.analyse.rules.zone import ZoneRule
from stream.analyse.stage import AnalyseStage
from stream.analyse.tracking.stationary import COVERED_S, UNCONFIRMED_S
from stream.analyse.tracking.tracker import ByteTracker
from tests.stream.analyse.owners import log_of, outputs
from tests.stream.analyse.results import result_at

FPS = 10.0
RIGHT = ((0.5, 0.0), (1.0, 0.0), (1.0, 1.0), (0.5, 1.0))
DWELL = ZoneRule(name="bay", camera="c", pipeline="p", polygon=RIGHT, labels=("car",), dwell_s=30.0)
LINE = LineRule(name="line", camera="c", pipeline="p", start=(0.8, 1.0), end=(0.8, 0.0))
PIPELINE = PipelineConfig(name="p", model="m", width=64, height=64, regions="motion")
FAR = Box(0.0, 0.0, 60.0, 30.0)
"""A box far from the car, in which another object moves."""
STOP = 480.0


def place(x: float, y: float = 180.0) -> Box:
    return Box(x - 40.0, y - 20.0, x + 40.0, y + 20.0)


def seen(box: Box, label: str = "car", score: float = 0.9) -> Detection:
    return Detection(box=box, label=label, class_id=1, score=score)


def result(at_s: float, *found: Detection, motion: Sequence[Box] | None = (), **fields: Any) -> Result:
    """Return the result of a pipeline that examines moving regions, and stationary boxes that the agent lists."""
    boxes = None if motion is None else tuple(motion)
    looked_at = (*(boxes or ()), *(fields.get("resting") or ()))
    values = {"outcome": "classified" if looked_at else "empty", "looked_at": looked_at, **fields}
    return result_at(round(at_s * FPS), at_s, *found, motion=boxes, **values)


def moves(at_s: float, *boxes: Box) -> Result:
    """Return a result in which the model finds a car in each moving region."""
    return result(at_s, *map(seen, boxes), motion=boxes)


def times(start_s: float, stop_s: float) -> list[float]:
    return [n / FPS for n in range(round(start_s * FPS), round(stop_s * FPS))]


def parked(until_s: float = 6.0) -> list[Result]:
    """Return the results of a car that comes from the left and stands from 1.6 s on."""
    return [moves(at_s, place(min(160.0 + 200.0 * at_s, STOP))) for at_s in times(0.0, until_s)]


def listed(at_s: float) -> Result:
    """Return a result without motion, in which the agent lists the car and the model finds it."""
    return result(at_s, seen(place(STOP)), resting=(place(STOP),))


def busy(start_s: float, stop_s: float, *, resting: tuple[Box, ...] | None = None) -> list[Result]:
    """Return results with motion elsewhere.

    Every ten seconds the agent lists the stationary box ``resting``, and the model detects its object.
    """
    found = []
    for at_s in times(start_s, stop_s):
        is_listed = resting is not None and round(at_s * FPS) % 100 < 2
        rests = resting if is_listed else None
        found.append(result(at_s, *map(seen, rests or ()), motion=(FAR,), resting=rests))
    return found


def events_of(results: Iterable[Result], *rules: CameraRule) -> list[Event]:
    analyser = Analyser(rules or (DWELL,), None, ByteTracker)
    return [event for one in results for event in analyser.step(one)]


def times_of(results: Iterable[Result], *rules: CameraRule) -> list[float]:
    return [(event.data.captured_ns - 10**18) / 1e9 for event in events_of(results, *rules)]


ENTERED_S = 0.8


def test_a_stationary_car_is_reported_once_while_other_objects_move_and_no_model_examines_the_car() -> None:
    (event,) = events_of([*parked(), *busy(6.0, 60.0, resting=(place(STOP),))])
    assert event.data.track == "1-1-0"
    assert event.data.captured_ns == 10**18 + round((ENTERED_S + DWELL.dwell_s) * 1e9)
    assert event.data.overlay.box == place(STOP)


def test_an_object_with_two_labels_of_a_classifier_is_reported_under_each_label() -> None:
    taxi = DWELL.model_copy(update={"name": "taxi", "labels": ("taxi",)})
    results = []
    for one in (*parked(), *busy(6.0, 60.0, resting=(place(STOP),))):
        taxis = tuple(seen(found.box, "taxi", score=0.8) for found in one.detections)
        results.append(one.model_copy(update={"detections": one.detections + taxis}))
    events = events_of(results, DWELL, taxi)
    assert [(one.data.rule, one.data.track) for one in events] == [("bay", "1-1-0"), ("taxi", "1-1-1")]


@pytest.mark.parametrize("sampled", [False, True])
def test_a_car_in_a_still_picture_is_reported_with_the_next_frame_that_is_sent(sampled: bool) -> None:
    pictures = [result(at_s, withheld={"still": 100}, sampled=sampled) for at_s in (16.0, 26.0, 36.0, 46.0)]
    assert times_of([*parked(), listed(6.0), *pictures]) == [36.0]


def test_a_zone_visit_ends_when_the_agent_no_longer_lists_the_car_as_stationary() -> None:
    assert events_of([*parked(), *busy(6.0, 29.0, resting=(place(STOP),)), *busy(29.0, 80.0, resting=())]) == []


def test_a_track_continues_if_the_list_of_stationary_objects_is_full_and_does_not_include_it() -> None:
    others = tuple(Box(8.0 * n, 300.0, 8.0 * n + 7.0, 310.0) for n in range(MAX_RESTING))
    found = [*parked(), listed(6.0), *busy(6.1, 60.0, resting=others)]
    assert times_of(found) == [ENTERED_S + DWELL.dwell_s]


@pytest.mark.parametrize(("looks", "count"), [((20.0,), 1), ((20.0, 24.0), 0)])
def test_a_stationary_track_survives_one_missed_detection_but_not_two(looks: tuple[float, ...], count: int) -> None:
    """The agent lists the car, and the model examines the listed box without detecting the car."""
    found = [*parked(), *busy(6.0, 60.0)]
    for at_s in looks:
        found[round(at_s * FPS)] = result(at_s, motion=(FAR,), resting=(place(STOP),))
    found[260] = result(26.0, seen(place(STOP)), motion=(FAR,), resting=(place(STOP),))
    assert len(events_of(found)) == count


def test_a_car_that_the_model_missed_is_not_reported_before_it_is_detected_again() -> None:
    found = [*parked(), *busy(6.0, 60.0)]
    found[200] = result(20.0, motion=(FAR,), resting=(place(STOP),))
    assert events_of(found) == []
    found[400] = result(40.0, seen(place(STOP)), motion=(FAR,), resting=(place(STOP),))
    assert times_of(found) == [40.0]


def test_the_track_of_a_car_that_goes_out_of_sight_while_moving_is_not_continued() -> None:
    way = [moves(at_s, place(160.0 + 200.0 * at_s)) for at_s in times(0.0, 1.7)]
    assert events_of([*way, *busy(1.7, 60.0)]) == []
    still = [result(at_s, withheld={"still": 100}) for at_s in (2.0, 12.0, 22.0, 32.0, 42.0)]
    assert events_of([*way, *still]) == []


@pytest.mark.parametrize("fields", [{"withheld": {"overload": 20}}, {"withheld": {"still": 19, "expired": 1}}, {}])
def test_a_gap_of_unseen_frames_ends_a_stationary_track(fields: dict[str, Any]) -> None:
    """Two seconds of frames are withheld by an overload, expired in the spool, or were sent on another lane."""
    gap = result(12.0, motion=(FAR,), **fields)
    assert events_of([*parked(), *busy(6.0, 10.0), gap, *busy(12.1, 60.0)]) == []


def test_shed_frames_end_a_stationary_track() -> None:
    shed = [one.model_copy(update={"outcome": "shed", "reason": "stale"}) for one in busy(10.0, 12.0)]
    assert events_of([*parked(), *busy(6.0, 10.0), *shed, *busy(12.0, 60.0)]) == []


def passing(start_s: float, stop_s: float) -> list[Result]:
    """Return results in which a large object without a label moves in front of the car."""
    return [result(at_s, motion=(Box(400.0, 100.0, 560.0, 220.0),)) for at_s in times(start_s, stop_s)]


def test_a_car_hidden_for_a_while_keeps_its_zone_visit_if_the_agent_lists_it_afterwards() -> None:
    before, after = busy(6.0, 27.0), [*busy(34.0, 35.0), *busy(35.0, 60.0, resting=(place(STOP),))]
    found = [*parked(), *before, *passing(27.0, 34.0), *after]
    assert times_of(found) == [40.0]
    assert events_of([*parked(), *before, *passing(27.0, 34.0), *busy(34.0, 60.0, resting=())]) == []
    assert events_of([*parked(), *before, *passing(27.0, 28.0 + COVERED_S), *busy(28.0 + COVERED_S, 60.0)]) == []


def test_a_stationary_track_that_is_not_confirmed_for_minutes_is_dropped() -> None:
    long = DWELL.model_copy(update={"dwell_s": UNCONFIRMED_S + 60.0})
    assert events_of([*parked(), listed(6.0), *busy(6.1, 250.0)], long) == []
    assert len(events_of([*parked(), *busy(6.0, 250.0, resting=(place(STOP),))], long)) == 1
    within = DWELL.model_copy(update={"dwell_s": UNCONFIRMED_S - 10.0})
    assert len(events_of([*parked(), listed(6.0), *busy(6.1, 250.0)], within)) == 1


@pytest.mark.parametrize("looked_at", [(), (Box(0.0, 0.0, 640.0, 360.0),)])
def test_a_result_without_motion_regions_continues_only_tracks_with_a_detection(looked_at: tuple[Box, ...]) -> None:
    """Results have no motion regions if the model examines whole frames, or if the engine is of an older version."""
    whole = [result(at_s, motion=None, outcome="classified", looked_at=looked_at) for at_s in times(6.0, 60.0)]
    assert events_of([*parked(), *whole]) == []


def test_parts_of_a_car_that_the_background_absorbs_belong_to_one_track() -> None:
    left, right = place(STOP)._replace(right=STOP - 5.0), place(STOP)._replace(left=STOP + 5.0)
    split = [moves(at_s, left, right) for at_s in times(6.0, 7.5)]
    last = [moves(at_s, left._replace(right=STOP - 30.0)) for at_s in times(7.5, 8.0)]
    rests = [result(8.0 + n / FPS, seen(left), seen(right), resting=(left, right)) for n in range(2)]
    found = [*parked(), *split, *last, *rests, *busy(8.2, 60.0)]
    (event,) = events_of(found)
    assert (event.data.track, event.data.overlay.box) == ("1-1-0", place(STOP))


def test_a_car_half_absorbed_by_the_background_is_one_track() -> None:
    left, right = place(STOP)._replace(right=STOP - 8.0), place(STOP)._replace(left=STOP + 8.0)
    halves = result(6.0, seen(left), seen(right), motion=(left,), resting=(right,))
    (event,) = events_of([*parked(), halves, *busy(6.1, 60.0, resting=(place(STOP),))])
    assert event.data.track == "1-1-0"


def test_a_pipeline_on_whole_frames_gives_a_person_in_front_of_a_bus_a_separate_track() -> None:
    bus, person = Box(340.0, 60.0, 620.0, 300.0), Box(460.0, 200.0, 500.0, 300.0)
    both = [
        result(at_s, seen(bus, "bus"), seen(person, "person"), motion=None, outcome="classified", withheld={})
        for at_s in times(0.0, 10.0)
    ]
    people = DWELL.model_copy(update={"labels": ("person",), "dwell_s": 8.0})
    assert len(events_of(both, people)) == 1


def test_motion_inside_a_stationary_box_does_not_move_its_track() -> None:
    """A person who waves or passes in front of the car is detected as well."""
    arm = Box(STOP - 10.0, 165.0, STOP + 5.0, 175.0)
    waves = [result(at_s, seen(arm, "person"), motion=(arm,)) for at_s in times(10.0, 20.0)]
    (event,) = events_of([*parked(), listed(6.0), *busy(6.1, 10.0), *waves, *busy(20.0, 60.0)])
    assert (event.data.track, event.data.overlay.box) == ("1-1-0", place(STOP))


SHORT = DWELL.model_copy(update={"dwell_s": 8.0})


def test_a_track_that_goes_out_of_sight_before_the_agent_lists_it_is_not_continued() -> None:
    """A person stands in a doorway for three seconds, and the agent does not list the person."""
    stood = parked(until_s=4.8)
    assert events_of([*stood, *busy(4.8, 60.0)], SHORT) == []
    assert events_of([*stood, *busy(4.8, 14.8), *busy(14.8, 60.0, resting=())], SHORT) == []
    assert len(events_of([*stood, *busy(4.8, 60.0, resting=(place(STOP),))], SHORT)) == 1


def test_no_stationary_track_is_confirmed_if_the_agent_never_lists_stationary_objects() -> None:
    still = [result(at_s, withheld={"still": 100}) for at_s in (16.0, 26.0, 36.0, 46.0)]
    assert events_of([*parked(), *still]) == []
    assert events_of([*parked(), *busy(6.0, 60.0)]) == []


BUS = Box(360.0, 60.0, 600.0, 240.0)


def test_a_bus_listed_as_stationary_does_not_confirm_the_track_of_an_object_behind_it() -> None:
    """Other objects move beside the bus all the time, and no model examines the bus."""
    stops = [result(at_s, seen(BUS, "bus"), motion=(BUS,)) for at_s in times(5.0, 9.0)]
    beside = [
        result(at_s, motion=(FAR,), resting=(BUS,) if round(at_s * FPS) % 100 < 2 else None, looked_at=(FAR,))
        for at_s in times(9.0, 60.0)
    ]
    assert events_of([*parked(until_s=5.0), *stops, *beside]) == []


def test_an_object_that_moves_in_front_of_a_stationary_object_is_not_stationary() -> None:
    """The object reaches the bus at the moment when the model examines the bus."""
    way = [moves(at_s, place(160.0 + 200.0 * at_s)) for at_s in times(0.0, 1.6)]
    last = [result(at_s, seen(place(STOP)), motion=(place(STOP),), resting=(BUS,)) for at_s in (1.6, 1.7)]
    assert events_of([*way, *last, *busy(1.8, 60.0)], SHORT) == []


def trembling(start_s: float, stop_s: float, *found: Detection) -> list[Result]:
    """Return results of a bus that trembles, so that the background never absorbs it."""
    return [result(at_s, seen(BUS, "bus"), *found, motion=(BUS,)) for at_s in times(start_s, stop_s)]


def test_a_person_in_front_of_a_trembling_bus_is_not_merged_with_it() -> None:
    person = seen(Box(460.0, 160.0, 490.0, 240.0), "person")
    people = DWELL.model_copy(update={"labels": ("person",), "dwell_s": 1.0})
    (event,) = events_of([*trembling(0.0, 15.0), *trembling(15.0, 20.0, person)], people)
    assert event.data.overlay.box == person.box


@pytest.mark.parametrize("wanted", [{"labels": ("person",)}, {"labels": ("bus",), "attributes": {"coat": ("red",)}}])
def test_a_moving_part_changes_neither_label_nor_attributes_of_the_whole_object(wanted: dict[str, object]) -> None:
    coat = Attribute(name="coat", label="red", score=0.9, model="m@1")
    part = seen(Box(460.0, 100.0, 500.0, 240.0), "person").model_copy(update={"attributes": (coat,)})
    parts = [result(at_s, part, motion=(part.box,)) for at_s in times(3.0, 9.0)]
    rule = DWELL.model_copy(update={"dwell_s": 0.0, **wanted})
    assert events_of([*trembling(0.0, 3.0), *parts], rule) == []


def test_two_missed_detections_of_a_stationary_object_within_a_second_count_once() -> None:
    """The agent lists the car in two consecutive frames.

    A model that misses the car in one frame also misses the car in the other frame.
    """
    found = [*parked(), *busy(6.0, 60.0, resting=(place(STOP),))]
    for index in (200, 201, 400, 401):
        found[index] = result(index / FPS, motion=(FAR,), resting=(place(STOP),))
    at_once = DWELL.model_copy(update={"dwell_s": 0.0})
    assert len(events_of(found, at_once)) == 1
    assert times_of(found) == [ENTERED_S + DWELL.dwell_s]


def set_back(found: Iterable[Result], from_s: float) -> list[Result]:
    """Return the results of a host whose clock is set back by an hour."""
    since_ns, hour_ns = 10**18 + round(from_s * 1e9), 3600 * 10**9
    return [
        one.model_copy(update={"captured_ns": one.captured_ns - hour_ns}) if one.captured_ns >= since_ns else one
        for one in found
    ]


def test_a_camera_clock_set_back_neither_ends_nor_prolongs_a_zone_visit() -> None:
    found = [*parked(), *busy(6.0, 60.0, resting=(place(STOP),))]
    (event,) = events_of(set_back(found, 10.0))
    assert event.data.seq == events_of(found)[0].data.seq + 1  # one frame has no usable time
    long = DWELL.model_copy(update={"dwell_s": UNCONFIRMED_S + 60.0})
    assert events_of(set_back([*parked(), listed(6.0), *busy(6.1, 250.0)], 10.0), long) == []
    hidden = [*parked(), listed(6.0), *busy(6.1, 10.0), *passing(10.0, 24.0), *busy(24.0, 25.0)]
    assert events_of(set_back([*hidden, *busy(25.0, 60.0, resting=(place(STOP),))], 12.0)) == []


def test_a_stopped_car_keeps_its_track_when_it_drives_on_and_crosses_no_line_while_stopped() -> None:
    off = [moves(at_s, place(STOP + 150.0 * (at_s - 30.0))) for at_s in times(30.1, 31.5)]
    cars = [*parked(), *busy(6.0, 30.0), *off]
    (event,) = events_of(cars, LINE)
    assert (event.data.track, event.data.details["direction"]) == ("1-1-0", "forward")
    stops = [moves(at_s, place(min(160.0 + 200.0 * at_s, 505.0))) for at_s in times(0.0, 5.0)]
    beyond = moves(5.0, place(525.0))
    assert events_of([*stops, beyond, *busy(5.1, 20.0)], LINE) == []


def test_a_stationary_car_on_a_line_makes_no_crossing_when_its_region_is_classified_again() -> None:
    """The centre of the listed box is on one side of the line, the centre of the moving box on the other."""
    stops = [moves(at_s, place(min(160.0 + 200.0 * at_s, 505.0))) for at_s in times(0.0, 6.0)]
    rests = busy(6.0, 30.0, resting=(place(519.0),))
    assert events_of([*stops, *rests], LINE) == []
    off = [moves(at_s, place(519.0 + 150.0 * (at_s - 30.0))) for at_s in (30.0, 30.1)]
    (event,) = events_of([*stops, *rests, *off], LINE)
    assert event.data.track == "1-1-0"


def test_a_stationary_track_survives_a_change_of_the_picture_size() -> None:
    found = [*parked(), *busy(6.0, 60.0, resting=(place(STOP),))]
    large = [one if n < 200 else _doubled(one) for n, one in enumerate(found)]
    (event,) = events_of(large)
    assert event.data.seq == events_of(found)[0].data.seq
    assert event.data.overlay.box == Box(*(2 * edge for edge in place(STOP)))


def _doubled(one: Result) -> Result:
    def twice(boxes: Sequence[Box]) -> tuple[Box, ...]:
        return tuple(Box(*(2 * edge for edge in box)) for box in boxes)

    found = [each.model_copy(update={"box": twice([each.box])[0]}) for each in one.detections]
    fields = {"motion": twice(one.motion or ()), "looked_at": twice(one.looked_at), "detections": tuple(found)}
    resting = None if one.resting is None else twice(one.resting)
    return one.model_copy(update={**fields, "resting": resting, "width": 1280, "height": 720})


def test_processing_the_same_results_with_stationary_objects_twice_makes_equal_events() -> None:
    found = [*parked(), *busy(6.0, 27.0), *passing(27.0, 34.0), *busy(34.0, 60.0, resting=(place(STOP),))]
    assert events_of(found) == events_of(found)


async def events_from(log: MemoryLog, start: int, stop: int) -> dict[str, Event]:
    entries = (CameraConfig(name="c", source="device:0"), PIPELINE, DWELL)
    stage = AnalyseStage(Config({entry.key: entry for entry in entries}), 1)
    events = [decode_json(Event, out.value) async for _, out in outputs(stage, log, start, stop)]
    return {event.id: event for event in events}


async def test_a_restart_during_a_zone_visit_makes_the_same_event_once() -> None:
    results = [*parked(), *busy(6.0, 60.0, resting=(place(STOP),))]
    log = await log_of(results)
    whole = await events_from(log, 0, len(results))
    assert len(whole) == 1
    for cut in (80, 250, 305, 309, 320):
        before = {key: event for key, event in whole.items() if event.data.seq < cut}
        after = await events_from(log, cut, len(results))
        assert before | after == whole
        assert not before.keys() & after.keys()
