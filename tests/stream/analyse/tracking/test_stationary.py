"""What stands still where nothing moves and no model looks: held, proved, ended."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pytest

from ingest.contract import headers as h
from ingest.contract.codec import decode_json, encode
from ingest.contract.identity import LIVE
from ingest.contract.records import MAX_RESTING, Box, Detection, Event, FrameRef, Result
from ingest.contract.topics import RESULTS
from ingest.kafka.log import Outgoing, TopicPartition
from ingest.kafka.memorylog import MemoryLog
from ingest.runtime.clock import ManualClock
from ingest.site import CameraConfig, PipelineConfig
from ingest.site.topic.view import Config
from stream.analyse.analyser import Analyser
from stream.analyse.rule import CameraRule
from stream.analyse.rules.line import LineRule
from stream.analyse.rules.zone import ZoneRule
from stream.analyse.stage import AnalyseStage
from stream.analyse.tracking.stationary import COVERED_S, UNCONFIRMED_S
from stream.analyse.tracking.tracker import ByteTracker

FPS = 10.0
RIGHT = ((0.5, 0.0), (1.0, 0.0), (1.0, 1.0), (0.5, 1.0))
DWELL = ZoneRule(name="bay", camera="c", pipeline="p", polygon=RIGHT, labels=("car",), dwell_s=30.0)
LINE = LineRule(name="line", camera="c", pipeline="p", start=(0.8, 1.0), end=(0.8, 0.0))
PIPELINE = PipelineConfig(name="p", model="m", width=64, height=64, regions="motion")
FAR = Box(0.0, 0.0, 60.0, 30.0)
"""Where something else moves."""
STOP = 480.0


def place(x: float, y: float = 180.0) -> Box:
    return Box(x - 40.0, y - 20.0, x + 40.0, y + 20.0)


def seen(box: Box, label: str = "car", score: float = 0.9) -> Detection:
    return Detection(box=box, label=label, class_id=1, score=score)


def result(at_s: float, *found: Detection, motion: Sequence[Box] | None = (), **fields: Any) -> Result:
    """A frame of a pipeline that looks at what moves, and at what rests where that is named."""
    boxes = None if motion is None else tuple(motion)
    looked_at = (*(boxes or ()), *(fields.get("resting") or ()))
    values: dict[str, Any] = {"outcome": "classified" if looked_at else "empty", "looked_at": looked_at, **fields}
    return Result(
        camera="c",
        epoch=1,
        seq=round(at_s * FPS),
        lane=LIVE,
        pipeline="p",
        pipelines=("p",),
        captured_ns=10**18 + round(at_s * 1e9),
        finished_ns=10**18,
        width=640,
        height=360,
        source=FrameRef("frames", 0, 0),
        detections=found,
        motion=boxes,
        **values,
    )


def moves(at_s: float, *boxes: Box) -> Result:
    """A frame in which the model finds a car wherever something moves."""
    return result(at_s, *map(seen, boxes), motion=boxes)


def times(start_s: float, stop_s: float) -> list[float]:
    return [n / FPS for n in range(round(start_s * FPS), round(stop_s * FPS))]


def parked(until_s: float = 6.0) -> list[Result]:
    """It comes from the left, and stands from 1.6 s on."""
    return [moves(at_s, place(min(160.0 + 200.0 * at_s, STOP))) for at_s in times(0.0, until_s)]


def named(at_s: float) -> Result:
    """Nothing moves; what rests is told, and found."""
    return result(at_s, seen(place(STOP)), resting=(place(STOP),))


def busy(start_s: float, stop_s: float, *, resting: tuple[Box, ...] | None = None) -> list[Result]:
    """Something moves elsewhere; every ten seconds what rests is told, and found by the model."""
    found = []
    for at_s in times(start_s, stop_s):
        tells = resting is not None and round(at_s * FPS) % 100 < 2
        rests = resting if tells else None
        found.append(result(at_s, *map(seen, rests or ()), motion=(FAR,), resting=rests))
    return found


def told(results: Iterable[Result], *rules: CameraRule) -> list[Event]:
    analyser = Analyser(rules or (DWELL,), "", ByteTracker)
    return [event for one in results for event in analyser.step(one)]


def told_s(results: Iterable[Result], *rules: CameraRule) -> list[float]:
    return [(event.data.captured_ns - 10**18) / 1e9 for event in told(results, *rules)]


ENTERED_S = 0.8


def test_what_stands_is_told_once_while_others_move_and_no_model_looks_at_it() -> None:
    (event,) = told([*parked(), *busy(6.0, 60.0, resting=(place(STOP),))])
    assert event.data.track == "1-1-0"
    assert event.data.captured_ns == 10**18 + round((ENTERED_S + DWELL.dwell_s) * 1e9)
    assert event.data.overlay.box == place(STOP)


@pytest.mark.parametrize("sampled", [False, True])
def test_what_stands_in_a_still_scene_is_told_in_the_next_picture_of_it(sampled: bool) -> None:
    pictures = [result(at_s, withheld={"still": 100}, sampled=sampled) for at_s in (16.0, 26.0, 36.0, 46.0)]
    assert told_s([*parked(), named(6.0), *pictures]) == [36.0]


def test_when_nothing_rests_there_any_more_its_stay_is_over() -> None:
    assert told([*parked(), *busy(6.0, 29.0, resting=(place(STOP),)), *busy(29.0, 80.0, resting=())]) == []


def test_a_list_that_may_not_be_whole_ends_nothing() -> None:
    others = tuple(Box(8.0 * n, 300.0, 8.0 * n + 7.0, 310.0) for n in range(MAX_RESTING))
    found = [*parked(), named(6.0), *busy(6.1, 60.0, resting=others)]
    assert told_s(found) == [ENTERED_S + DWELL.dwell_s]


@pytest.mark.parametrize(("looks", "count"), [((20.0,), 1), ((20.0, 24.0), 0)])
def test_a_model_may_overlook_it_once_but_not_twice(looks: tuple[float, ...], count: int) -> None:
    """It is named, and the model is shown it: it finds nothing, and the second time that is believed."""
    found = [*parked(), *busy(6.0, 60.0)]
    for at_s in looks:
        found[round(at_s * FPS)] = result(at_s, motion=(FAR,), resting=(place(STOP),))
    found[260] = result(26.0, seen(place(STOP)), motion=(FAR,), resting=(place(STOP),))
    assert len(told(found)) == count


def test_what_the_model_has_overlooked_is_not_told_before_it_is_found_again() -> None:
    found = [*parked(), *busy(6.0, 60.0)]
    found[200] = result(20.0, motion=(FAR,), resting=(place(STOP),))
    assert told(found) == []
    found[400] = result(40.0, seen(place(STOP)), motion=(FAR,), resting=(place(STOP),))
    assert told_s(found) == [40.0]


def test_what_goes_out_of_sight_while_it_moves_does_not_stand() -> None:
    way = [moves(at_s, place(160.0 + 200.0 * at_s)) for at_s in times(0.0, 1.7)]
    assert told([*way, *busy(1.7, 60.0)]) == []
    still = [result(at_s, withheld={"still": 100}) for at_s in (2.0, 12.0, 22.0, 32.0, 42.0)]
    assert told([*way, *still]) == []


@pytest.mark.parametrize("fields", [{"withheld": {"overload": 20}}, {"withheld": {"still": 19, "expired": 1}}, {}])
def test_what_nobody_has_looked_at_for_long_did_not_stand(fields: dict[str, Any]) -> None:
    """Two seconds of frames are withheld for want of room, expired, or went another way."""
    gap = result(12.0, motion=(FAR,), **fields)
    assert told([*parked(), *busy(6.0, 10.0), gap, *busy(12.1, 60.0)]) == []


def test_frames_that_are_shed_are_not_looked_at() -> None:
    shed = [one.model_copy(update={"outcome": "shed", "reason": "stale"}) for one in busy(10.0, 12.0)]
    assert told([*parked(), *busy(6.0, 10.0), *shed, *busy(12.0, 60.0)]) == []


def passing(start_s: float, stop_s: float) -> list[Result]:
    """Something large moves in front of it, and is taken for nothing."""
    return [result(at_s, motion=(Box(400.0, 100.0, 560.0, 220.0),)) for at_s in times(start_s, stop_s)]


def test_what_is_hidden_for_a_while_has_stood_there_all_along_if_it_is_there_afterwards() -> None:
    before, after = busy(6.0, 27.0), [*busy(34.0, 35.0), *busy(35.0, 60.0, resting=(place(STOP),))]
    found = [*parked(), *before, *passing(27.0, 34.0), *after]
    assert told_s(found) == [40.0]
    assert told([*parked(), *before, *passing(27.0, 34.0), *busy(34.0, 60.0, resting=())]) == []
    assert told([*parked(), *before, *passing(27.0, 28.0 + COVERED_S), *busy(28.0 + COVERED_S, 60.0)]) == []


def test_what_nobody_has_seen_for_minutes_is_held_no_more() -> None:
    long = DWELL.model_copy(update={"dwell_s": UNCONFIRMED_S + 60.0})
    assert told([*parked(), named(6.0), *busy(6.1, 250.0)], long) == []
    assert len(told([*parked(), *busy(6.0, 250.0, resting=(place(STOP),))], long)) == 1
    within = DWELL.model_copy(update={"dwell_s": UNCONFIRMED_S - 10.0})
    assert len(told([*parked(), named(6.0), *busy(6.1, 250.0)], within)) == 1


@pytest.mark.parametrize("looked_at", [(), (Box(0.0, 0.0, 640.0, 360.0),)])
def test_results_that_do_not_tell_what_moves_hold_nothing(looked_at: tuple[Box, ...]) -> None:
    """The model looks at whole frames and does not find it, or the engine is an older one."""
    whole = [result(at_s, motion=None, outcome="classified", looked_at=looked_at) for at_s in times(6.0, 60.0)]
    assert told([*parked(), *whole]) == []


def test_parts_of_what_the_background_takes_in_are_one_thing_that_stands() -> None:
    left, right = place(STOP)._replace(right=STOP - 5.0), place(STOP)._replace(left=STOP + 5.0)
    split = [moves(at_s, left, right) for at_s in times(6.0, 7.5)]
    last = [moves(at_s, left._replace(right=STOP - 30.0)) for at_s in times(7.5, 8.0)]
    rests = [result(8.0 + n / FPS, seen(left), seen(right), resting=(left, right)) for n in range(2)]
    found = [*parked(), *split, *last, *rests, *busy(8.2, 60.0)]
    (event,) = told(found)
    assert (event.data.track, event.data.overlay.box) == ("1-1-0", place(STOP))


def test_what_is_half_taken_in_still_stands() -> None:
    left, right = place(STOP)._replace(right=STOP - 8.0), place(STOP)._replace(left=STOP + 8.0)
    halves = result(6.0, seen(left), seen(right), motion=(left,), resting=(right,))
    (event,) = told([*parked(), halves, *busy(6.1, 60.0, resting=(place(STOP),))])
    assert event.data.track == "1-1-0"


def test_somebody_in_front_of_a_bus_is_nobodys_part_for_a_model_that_looks_at_whole_frames() -> None:
    bus, person = Box(340.0, 60.0, 620.0, 300.0), Box(460.0, 200.0, 500.0, 300.0)
    both = [
        result(at_s, seen(bus, "bus"), seen(person, "person"), motion=None, outcome="classified", withheld={})
        for at_s in times(0.0, 10.0)
    ]
    people = DWELL.model_copy(update={"labels": ("person",), "dwell_s": 8.0})
    assert len(told(both, people)) == 1


def test_what_moves_within_it_leaves_it_where_it_is() -> None:
    """Somebody who stands there waves, or passes in front of it, and is found as well."""
    arm = Box(STOP - 10.0, 165.0, STOP + 5.0, 175.0)
    waves = [result(at_s, seen(arm, "person"), motion=(arm,)) for at_s in times(10.0, 20.0)]
    (event,) = told([*parked(), named(6.0), *busy(6.1, 10.0), *waves, *busy(20.0, 60.0)])
    assert (event.data.track, event.data.overlay.box) == ("1-1-0", place(STOP))


SHORT = DWELL.model_copy(update={"dwell_s": 8.0})


def test_what_goes_out_of_sight_before_it_is_known_to_rest_has_not_stood_on() -> None:
    """Somebody stands in a doorway for three seconds, and nothing tells of it until the next look."""
    stood = parked(until_s=4.8)
    assert told([*stood, *busy(4.8, 60.0)], SHORT) == []
    assert told([*stood, *busy(4.8, 14.8), *busy(14.8, 60.0, resting=())], SHORT) == []
    assert len(told([*stood, *busy(4.8, 60.0, resting=(place(STOP),))], SHORT)) == 1


def test_an_agent_that_never_tells_what_rests_proves_nothing() -> None:
    still = [result(at_s, withheld={"still": 100}) for at_s in (16.0, 26.0, 36.0, 46.0)]
    assert told([*parked(), *still]) == []
    assert told([*parked(), *busy(6.0, 60.0)]) == []


BUS = Box(360.0, 60.0, 600.0, 240.0)


def test_a_bus_that_stops_in_front_of_somebody_does_not_prove_that_they_are_there() -> None:
    """Others move beside the bus all the time, so that no model looks at it."""
    stops = [result(at_s, seen(BUS, "bus"), motion=(BUS,)) for at_s in times(5.0, 9.0)]
    beside = [
        result(at_s, motion=(FAR,), resting=(BUS,) if round(at_s * FPS) % 100 < 2 else None, looked_at=(FAR,))
        for at_s in times(9.0, 60.0)
    ]
    assert told([*parked(until_s=5.0), *stops, *beside]) == []


def test_what_walks_in_front_of_something_that_rests_does_not_stand() -> None:
    """It gets on the bus just as that is looked at."""
    way = [moves(at_s, place(160.0 + 200.0 * at_s)) for at_s in times(0.0, 1.6)]
    last = [result(at_s, seen(place(STOP)), motion=(place(STOP),), resting=(BUS,)) for at_s in (1.6, 1.7)]
    assert told([*way, *last, *busy(1.8, 60.0)], SHORT) == []


def trembling(start_s: float, stop_s: float, *found: Detection) -> list[Result]:
    """A bus whose engine runs: nothing of it is ever taken in."""
    return [result(at_s, seen(BUS, "bus"), *found, motion=(BUS,)) for at_s in times(start_s, stop_s)]


def test_somebody_in_front_of_what_is_never_taken_in_is_no_part_of_it() -> None:
    person = seen(Box(460.0, 160.0, 490.0, 240.0), "person")
    people = DWELL.model_copy(update={"labels": ("person",), "dwell_s": 1.0})
    (event,) = told([*trembling(0.0, 15.0), *trembling(15.0, 20.0, person)], people)
    assert event.data.overlay.box == person.box


def test_a_part_does_not_tell_what_the_whole_is() -> None:
    part = seen(Box(460.0, 100.0, 500.0, 240.0), "person")
    parts = [result(at_s, part, motion=(part.box,)) for at_s in times(3.0, 9.0)]
    people = DWELL.model_copy(update={"labels": ("person",), "dwell_s": 0.0})
    assert told([*trembling(0.0, 3.0), *parts], people) == []


def test_two_looks_at_the_same_picture_are_one() -> None:
    """The agent names what rests twice in a row: what a model overlooks in one, it overlooks in the other."""
    found = [*parked(), *busy(6.0, 60.0, resting=(place(STOP),))]
    for index in (200, 201, 400, 401):
        found[index] = result(index / FPS, motion=(FAR,), resting=(place(STOP),))
    at_once = DWELL.model_copy(update={"dwell_s": 0.0})
    assert len(told(found, at_once)) == 1
    assert told_s(found) == [ENTERED_S + DWELL.dwell_s]


def set_back(found: Iterable[Result], from_s: float) -> list[Result]:
    """A host's clock is set back by an hour."""
    since_ns, hour_ns = 10**18 + round(from_s * 1e9), 3600 * 10**9
    return [
        one.model_copy(update={"captured_ns": one.captured_ns - hour_ns}) if one.captured_ns >= since_ns else one
        for one in found
    ]


def test_a_clock_that_is_set_back_neither_takes_a_stay_away_nor_makes_it_last() -> None:
    found = [*parked(), *busy(6.0, 60.0, resting=(place(STOP),))]
    (event,) = told(set_back(found, 10.0))
    assert event.data.seq == told(found)[0].data.seq + 1  # the time of one frame is not known
    long = DWELL.model_copy(update={"dwell_s": UNCONFIRMED_S + 60.0})
    assert told(set_back([*parked(), named(6.0), *busy(6.1, 250.0)], 10.0), long) == []
    hidden = [*parked(), named(6.0), *busy(6.1, 10.0), *passing(10.0, 24.0), *busy(24.0, 25.0)]
    assert told(set_back([*hidden, *busy(25.0, 60.0, resting=(place(STOP),))], 12.0)) == []


def test_what_sets_off_again_is_the_same_and_what_was_held_has_crossed_nothing() -> None:
    off = [moves(at_s, place(STOP + 150.0 * (at_s - 30.0))) for at_s in times(30.1, 31.5)]
    cars = [*parked(), *busy(6.0, 30.0), *off]
    (event,) = told(cars, LINE)
    assert (event.data.track, event.data.details["direction"]) == ("1-1-0", "forward")
    stops = [moves(at_s, place(min(160.0 + 200.0 * at_s, 505.0))) for at_s in times(0.0, 5.0)]
    beyond = moves(5.0, place(525.0))
    assert told([*stops, beyond, *busy(5.1, 20.0)], LINE) == []


def test_what_rests_across_a_line_does_not_cross_it_when_it_is_looked_at() -> None:
    """What rests there is not named with quite the box that moved: the shadow, or a bonnet, is another one's."""
    stops = [moves(at_s, place(min(160.0 + 200.0 * at_s, 505.0))) for at_s in times(0.0, 6.0)]
    rests = busy(6.0, 30.0, resting=(place(519.0),))
    assert told([*stops, *rests], LINE) == []
    off = [moves(at_s, place(519.0 + 150.0 * (at_s - 30.0))) for at_s in (30.0, 30.1)]
    (event,) = told([*stops, *rests, *off], LINE)
    assert event.data.track == "1-1-0"


def test_a_place_is_the_same_when_the_picture_changes_its_size() -> None:
    found = [*parked(), *busy(6.0, 60.0, resting=(place(STOP),))]
    large = [one if n < 200 else _doubled(one) for n, one in enumerate(found)]
    (event,) = told(large)
    assert event.data.seq == told(found)[0].data.seq
    assert event.data.overlay.box == Box(*(2 * edge for edge in place(STOP)))


def _doubled(one: Result) -> Result:
    def twice(boxes: Sequence[Box]) -> tuple[Box, ...]:
        return tuple(Box(*(2 * edge for edge in box)) for box in boxes)

    found = [each.model_copy(update={"box": twice([each.box])[0]}) for each in one.detections]
    fields = {"motion": twice(one.motion or ()), "looked_at": twice(one.looked_at), "detections": tuple(found)}
    resting = None if one.resting is None else twice(one.resting)
    return one.model_copy(update={**fields, "resting": resting, "width": 1280, "height": 720})


def test_the_same_results_tell_the_same() -> None:
    found = [*parked(), *busy(6.0, 27.0), *passing(27.0, 34.0), *busy(34.0, 60.0, resting=(place(STOP),))]
    assert told(found) == told(found)


async def told_from(log: MemoryLog, start: int, stop: int) -> dict[str, Event]:
    entries = (CameraConfig(name="c", source="device:0"), PIPELINE, DWELL)
    stage = AnalyseStage(Config({entry.key: entry for entry in entries}), 1)
    interpreter, found = await stage.open(TopicPartition(RESULTS, 0), start, log), {}
    async for record in log.read(RESULTS, 0, start, stop):
        events = [decode_json(Event, out.value) for work in interpreter.process(record) for out in work.records]
        found |= {event.id: event for event in events}
    return found


@pytest.mark.parametrize("cut", [80, 250, 305, 309, 320])
async def test_a_restart_while_it_stands_tells_the_same(cut: int) -> None:
    clock, results = ManualClock(), [*parked(), *busy(6.0, 60.0, resting=(place(STOP),))]
    log = MemoryLog(1, clock)
    for one in results:
        clock.seconds = (one.captured_ns - 10**18) / 1e9
        await log.produce(Outgoing(RESULTS, 0, encode(one), headers=h.frame_headers([one.id], LIVE)))
    whole = await told_from(log, 0, len(results))
    assert len(whole) == 1
    assert await told_from(log, 0, cut) | await told_from(log, cut, len(results)) == whole
    assert not (await told_from(log, 0, cut)).keys() & (await told_from(log, cut, len(results))).keys()
