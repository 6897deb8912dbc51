"""Tracks and rules together: gaps, dwell, cooldown, labels, and pictures that change their size."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from ingest.contract.identity import LIVE
from ingest.contract.records import Box, Detection, Event, FrameRef, Result
from stream.analyse.analyser import Analyser
from stream.analyse.reported import Sighting
from stream.analyse.rule import CameraRule
from stream.analyse.rules.line import LineRule
from stream.analyse.rules.zone import ZoneRule
from stream.analyse.tracking.tracker import ByteTracker

LINE = LineRule(name="line", camera="c", pipeline="p", start=(0.5, 1.0), end=(0.5, 0.0))
RIGHT = ZoneRule(name="right", camera="c", pipeline="p", polygon=((0.5, 0.0), (1.0, 0.0), (1.0, 1.0), (0.5, 1.0)))
FPS = 10.0


def car(x: float, y: float = 180.0, label: str = "car", score: float = 0.9) -> Detection:
    return Detection(box=Box(x - 40.0, y - 20.0, x + 40.0, y + 20.0), label=label, class_id=1, score=score)


def result(seq: int, at_s: float, *found: Detection, epoch: int = 1, **fields: Any) -> Result:
    values: dict[str, Any] = {"outcome": "classified", "width": 640, "height": 360, **fields}
    return Result(
        camera="c",
        epoch=epoch,
        seq=seq,
        lane=LIVE,
        pipeline="p",
        pipelines=("p",),
        captured_ns=10**18 + round(at_s * 1e9),
        finished_ns=10**18,
        source=FrameRef("frames", 0, seq),
        detections=found,
        **values,
    )


def told(results: Iterable[Result], *rules: CameraRule) -> list[Event]:
    analyser = Analyser(rules, "", ByteTracker)
    return [event for one in results for event in analyser.step(one)]


def drive(*found: Detection, first: int = 0) -> list[Result]:
    """A detection a frame, ten frames a second."""
    return [result(seq, seq / FPS, one) for seq, one in enumerate(found, first)]


def path(start: float, end: float, step: float = 20.0) -> list[Detection]:
    count = round(abs(end - start) / step)
    return [car(start + n * (end - start) / count) for n in range(count + 1)]


TO_LINE, FROM_LINE = path(160.0, 320.0), path(340.0, 500.0)


@pytest.mark.parametrize("seconds", [2.0, 60.0])
@pytest.mark.parametrize("withheld", [True, False])
def test_a_car_that_stops_on_the_line_is_counted_when_it_goes_on(seconds: float, withheld: bool) -> None:
    """Whether the agent keeps the frames in which nothing moves to itself, or they come and are empty."""
    before = drive(*TO_LINE)
    frames = round(seconds * FPS)
    onward = len(before) + frames
    after = drive(*FROM_LINE, first=onward)
    if withheld:
        after[0] = result(onward, onward / FPS, FROM_LINE[0], withheld={"still": frames})
        between = []
    else:
        between = [result(n, n / FPS, outcome="empty", reason="still") for n in range(len(before), onward)]
    (event,) = told([*before, *between, *after], LINE)
    assert event.data.details["direction"] == "forward"
    assert event.data.track == "1-1-0"


DWELL = RIGHT.model_copy(update={"dwell_s": 50.0})


def stay(seconds: float, first: int = 0, x: float = 480.0) -> list[Result]:
    return drive(*[car(x)] * round(seconds * FPS), first=first)


def test_one_that_comes_after_a_minute_of_shed_frames_is_not_the_one_before() -> None:
    shed = [result(n, n / FPS, outcome="shed", reason="stale") for n in range(50, 1050)]
    next_one = result(1051, 105.1, car(490.0), withheld={"rate": 1})
    assert told([*stay(5.0), *shed, next_one, *stay(5.0, 1052, x=490.0)], DWELL) == []
    (event,) = told([*stay(5.0), *shed, next_one, *stay(60.0, 1052, x=490.0)], DWELL)
    assert event.data.summary == "car in right for 50.0 s"


def test_one_that_comes_after_a_night_off_is_not_the_one_before() -> None:
    morning = [result(1000 + n, 36_000.0 + n / FPS, car(480.0)) for n in range(50)]
    morning[0] = result(1000, 36_000.0, car(480.0), withheld={"schedule": 950})
    assert told([*stay(5.0), *morning], DWELL) == []


def test_one_that_stands_through_a_still_gap_has_been_there_all_along() -> None:
    after = result(650, 65.0, car(480.0), withheld={"still": 600})
    (event,) = told([*stay(5.0), after], DWELL)
    assert event.data.summary == "car in right for 64.9 s"


def test_a_visit_is_told_when_it_has_lasted_and_once() -> None:
    (event,) = told(stay(150.0), DWELL)
    assert event.data.seq == 501
    assert event.data.summary == "car in right for 50.0 s"


def test_a_visit_that_is_out_already_is_not_told_when_it_has_lasted() -> None:
    """An earlier owner knew the visit's beginning and told of it; this one has seen less of it."""
    out = {(1, 200): {Sighting.of("right", "car", car(480.0).box)}}
    analyser = Analyser([DWELL], "", ByteTracker, out)
    assert [event for one in stay(150.0) for event in analyser.step(one)] == []
    elsewhere = {(1, 200): {Sighting.of("right", "car", car(400.0).box), Sighting.of("other", "car", car(480.0).box)}}
    analyser = Analyser([DWELL], "", ByteTracker, elsewhere)
    assert len([event for one in stay(150.0) for event in analyser.step(one)]) == 1


def test_a_crossing_while_the_rule_is_quiet_is_not_told() -> None:
    there_and_back = [*path(160.0, 480.0), *path(480.0, 160.0), *path(160.0, 480.0)]
    crossings = [event.data.details["direction"] for event in told(drive(*there_and_back), LINE)]
    assert crossings == ["forward", "backward", "forward"]
    quiet = LINE.model_copy(update={"cooldown_s": 3.0})
    assert [event.data.details["direction"] for event in told(drive(*there_and_back), quiet)] == [
        "forward",
        "forward",
    ]
    assert len(told(drive(*there_and_back), LINE.model_copy(update={"direction": "backward"}))) == 1


def test_one_that_comes_back_while_the_rule_is_quiet_and_stays_is_told_afterwards() -> None:
    """It enters at 0.9 s, leaves, and is back within the cooldown of 30 s, for five minutes."""
    rule = RIGHT.model_copy(update={"cooldown_s": 30.0})
    way = [*path(160.0, 480.0), *path(480.0, 160.0), *[car(160.0)] * 50, *path(160.0, 480.0), *[car(480.0)] * 3000]
    first, second = told(drive(*way), rule)
    assert first.data.incident == second.data.incident
    assert second.data.captured_ns - first.data.captured_ns == 30 * 10**9


CARS_ONLY = {"labels": ("car",)}


def test_one_that_is_known_for_a_car_after_the_line_has_crossed_it() -> None:
    cars = LINE.model_copy(update=CARS_ONLY)
    way = path(160.0, 600.0)
    line_at = 8
    seen = [one.model_copy(update={"label": "truck"}) if n < 8 else one for n, one in enumerate(way)]
    (event,) = told(drive(*seen), cars)
    assert (event.data.label, event.data.details["direction"]) == ("car", "forward")
    assert event.data.seq > line_at + 3
    assert told(drive(*[one.model_copy(update={"label": "truck"}) for one in way]), cars) == []


def test_one_that_is_known_for_a_car_long_after_the_line_was_none_when_it_crossed() -> None:
    cars = LINE.model_copy(update=CARS_ONLY)
    trucks = [one.model_copy(update={"label": "truck"}) for one in [*path(160.0, 480.0), *[car(480.0)] * 40]]
    assert told(drive(*trucks, *[car(480.0)] * 100), cars) == []


def test_one_that_is_hardly_seen_on_the_line_has_crossed_it() -> None:
    """It is followed with low scores, and counts as soon as it is seen well."""
    way = [car(x, score=0.2 if 280.0 < x < 380.0 else 0.9) for x in range(160, 500, 20)]
    assert len(told(drive(*way), LINE)) == 1
    assert (
        told(drive(*[car(x, score=0.55) for x in range(160, 500, 20)]), LINE.model_copy(update={"min_score": 0.6}))
        == []
    )


def test_frames_in_which_one_is_hardly_seen_are_part_of_its_visit_and_of_its_absence() -> None:
    hardly = [car(480.0, score=0.2)] * 30
    dwell = RIGHT.model_copy(update={"dwell_s": 4.0})
    (event,) = told(drive(*[car(480.0)] * 5, *hardly, *[car(480.0)] * 20), dwell)
    assert event.data.seq == 41
    out_and_in = [*path(480.0, 400.0), *(one.model_copy(update={"score": 0.2}) for one in path(280.0, 200.0))]
    back = [*path(220.0, 300.0), *path(340.0, 480.0)]
    assert len(told(drive(*[car(480.0)] * 5, *out_and_in, *back), RIGHT)) == 2


def test_a_truck_becomes_a_car_in_the_zone_and_is_told_then() -> None:
    cars = RIGHT.model_copy(update=CARS_ONLY)
    seen = [*[car(480.0, label="truck")] * 5, *[car(480.0)] * 30]
    (event,) = told(drive(*seen), cars)
    assert event.data.label == "car"


def large(seq: int, *found: Detection) -> Result:
    """The same place in a picture of twice the size."""
    boxes = [one.model_copy(update={"box": Box(*(2 * edge for edge in one.box))}) for one in found]
    return result(seq, seq / FPS, *boxes, width=1280, height=720)


def test_a_zone_keeps_its_place_when_the_picture_changes_its_size() -> None:
    left_half = [large(n, car(200.0)) for n in range(10, 40)]
    assert told([*drive(*[car(200.0)] * 10), *left_half], RIGHT) == []
    right_half = [large(n, car(480.0)) for n in range(10, 40)]
    assert len(told([*drive(*[car(200.0)] * 10), *right_half], RIGHT)) == 1


def test_a_track_goes_on_when_the_picture_changes_its_size_and_its_event_is_in_pixels_of_its_frame() -> None:
    way = path(160.0, 480.0)
    mixed = [large(n, one) if n % 3 else result(n, n / FPS, one) for n, one in enumerate(way)]
    (event,) = told(mixed, LINE)
    (plain,) = told(drive(*way), LINE)
    assert (event.id, event.data.seq) == (plain.id, plain.data.seq)
    assert event.data.seq % 3
    assert event.data.overlay.shape == ((640.0, 720.0), (640.0, 0.0))
    assert event.data.overlay.box == Box(*(2 * edge for edge in way[event.data.seq].box))
    assert event.data.overlay.trail[-1] == tuple(2 * at for at in way[event.data.seq].box.centre)


def test_a_picture_without_pixels_is_refused_and_the_next_one_is_not() -> None:
    analyser = Analyser([LINE], "", ByteTracker)
    with pytest.raises(ValueError, match="0×360"):
        analyser.step(result(0, 0.0, width=0))
    events = [event for one in drive(*path(160.0, 480.0), first=1) for event in analyser.step(one)]
    assert len(events) == 1


def test_shapes_are_made_once_and_not_for_each_track_and_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    for rule in ("line", "zone"):
        monkeypatch.setattr(f"stream.analyse.rules.{rule}.to_pixels", lambda points, *_: made.append(1) or points)
    told(drive(*[car(100.0)] * 50), LINE, RIGHT)
    assert len(made) == 2
