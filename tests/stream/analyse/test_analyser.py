"""Tests of tracks and rules together: gaps, dwell, cooldown, labels, and changes of the picture size."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from ingest.contract.records import Attribute, Box, ClipRequest, Detection, Event, Result
from ingest.site import CameraConfig, ClipConfig
from ingest.site.ground import GroundConfig
from ingest.site.lens import LensConfig
from stream.analyse.analyser import Analyser
from stream.analyse.reported import Sighting
from stream.analyse.rule import CameraRule, Scene
from stream.analyse.rules.line import LineRule
from stream.analyse.rules.zone import ZoneRule
from stream.analyse.tracking.tracker import ByteTracker
from stream.epochs import RUN_RECORDS
from tests.stream.analyse.recording import RecordingRule
from tests.stream.analyse.results import result_at

LINE = LineRule(name="line", camera="c", pipeline="p", start=(0.5, 1.0), end=(0.5, 0.0))
RIGHT = ZoneRule(name="right", camera="c", pipeline="p", polygon=((0.5, 0.0), (1.0, 0.0), (1.0, 1.0), (0.5, 1.0)))
FPS = 10.0


YARD = CameraConfig(name="c", source="simulated:road", site="yard")


def car(x: float, y: float = 180.0, label: str = "car", score: float = 0.9) -> Detection:
    return Detection(box=Box(x - 40.0, y - 20.0, x + 40.0, y + 20.0), label=label, class_id=1, score=score)


def events_of(results: Iterable[Result], *rules: CameraRule) -> list[Event]:
    analyser = Analyser(rules, None, ByteTracker)
    return [event for one in results for event in analyser.step(one)]


def drive(*found: Detection, first: int = 0, epoch: int = 1) -> list[Result]:
    """Return results with one detection each, at ten frames a second."""
    return [result_at(seq, seq / FPS, one, epoch=epoch) for seq, one in enumerate(found, first)]


def path(start: float, end: float, step: float = 20.0) -> list[Detection]:
    count = round(abs(end - start) / step)
    return [car(start + n * (end - start) / count) for n in range(count + 1)]


TO_LINE, FROM_LINE = path(160.0, 320.0), path(340.0, 500.0)


@pytest.mark.parametrize("seconds", [2.0, 60.0])
@pytest.mark.parametrize("withheld", [True, False])
def test_a_car_that_stops_on_a_line_is_counted_when_it_drives_on(seconds: float, withheld: bool) -> None:
    """The agent withholds the frames without motion, or sends them with empty results."""
    before = drive(*TO_LINE)
    frames = round(seconds * FPS)
    onward = len(before) + frames
    after = drive(*FROM_LINE, first=onward)
    if withheld:
        after[0] = result_at(onward, onward / FPS, FROM_LINE[0], withheld={"still": frames})
        between = []
    else:
        between = [result_at(n, n / FPS, outcome="empty", reason="still") for n in range(len(before), onward)]
    (event,) = events_of([*before, *between, *after], LINE)
    assert event.data.details["direction"] == "forward"
    assert event.data.track == "1-1-0"


def test_a_vehicle_detected_as_two_classes_crosses_a_line_once_as_the_likelier_class() -> None:
    """The two boxes of the vehicle differ a little. Two vehicles side by side remain two objects."""
    both = [
        result_at(n, n / FPS, car(160.0 + 20 * n), car(163.0 + 20 * n, 182.0, label="truck", score=0.6))
        for n in range(18)
    ]
    assert [event.data.label for event in events_of(both, LINE)] == ["car"]
    apart = [
        result_at(n, n / FPS, car(160.0 + 20 * n, 140.0), car(160.0 + 20 * n, label="truck", score=0.6))
        for n in range(18)
    ]
    assert sorted(event.data.label for event in events_of(apart, LINE)) == ["car", "truck"]


def test_several_labels_of_one_region_stay_separate_detections() -> None:
    """A classifier with independent labels gives several labels to the same region."""
    region = car(480.0).box
    scratched = [
        result_at(n, n / FPS, car(480.0, label="dent"), car(480.0, label="scratch", score=0.6), looked_at=(region,))
        for n in range(5)
    ]
    assert sorted(event.data.label for event in events_of(scratched, RIGHT)) == ["dent", "scratch"]


@pytest.mark.parametrize(("min_score", "events"), [(0.3, 1), (0.44, 1), (0.5, 0), (0.9, 0)])
def test_a_track_begins_with_a_detection_whose_score_reaches_the_lowest_min_score_of_all_rules(
    min_score: float, events: int
) -> None:
    faint = drive(*(car(160.0 + 20 * n, score=0.45) for n in range(18)))
    rule = LINE.model_copy(update={"min_score": min_score})
    strict = RIGHT.model_copy(update={"min_score": 0.9})
    assert len(events_of(faint, rule, strict)) == events
    assert len(events_of(faint, rule)) == events


def test_a_rule_with_a_high_min_score_gets_the_whole_path_of_an_object() -> None:
    """The object's score rises only after the line, but its path before the line still counts."""
    rising = drive(*(car(160.0 + 20 * n, score=0.6 if n < 10 else 0.95) for n in range(18)))
    assert len(events_of(rising, LINE.model_copy(update={"min_score": 0.9}))) == 1


DWELL = RIGHT.model_copy(update={"dwell_s": 50.0})


def stay(seconds: float, first: int = 0, x: float = 480.0) -> list[Result]:
    return drive(*[car(x)] * round(seconds * FPS), first=first)


def test_a_car_after_a_minute_of_shed_frames_is_a_new_track() -> None:
    shed = [result_at(n, n / FPS, outcome="shed", reason="stale") for n in range(50, 1050)]
    next_one = result_at(1051, 105.1, car(490.0), withheld={"rate": 1})
    assert events_of([*stay(5.0), *shed, next_one, *stay(5.0, 1052, x=490.0)], DWELL) == []
    (event,) = events_of([*stay(5.0), *shed, next_one, *stay(60.0, 1052, x=490.0)], DWELL)
    assert event.data.summary == "car in right for 50.0 s"


def test_a_car_after_a_night_without_frames_is_a_new_track() -> None:
    morning = [result_at(1000 + n, 36_000.0 + n / FPS, car(480.0)) for n in range(50)]
    morning[0] = result_at(1000, 36_000.0, car(480.0), withheld={"schedule": 950})
    assert events_of([*stay(5.0), *morning], DWELL) == []


def test_time_without_motion_counts_as_part_of_a_zone_visit() -> None:
    after = result_at(650, 65.0, car(480.0), withheld={"still": 600})
    (event,) = events_of([*stay(5.0), after], DWELL)
    assert event.data.summary == "car in right for 64.9 s"


def test_a_zone_visit_is_reported_once_when_it_reaches_the_dwell_time() -> None:
    (event,) = events_of(stay(150.0), DWELL)
    assert event.data.seq == 501
    assert event.data.summary == "car in right for 50.0 s"


def test_a_zone_visit_that_an_earlier_partition_owner_reported_is_not_reported_again() -> None:
    """An earlier owner saw the whole visit and reported it. The present owner has seen only a part of the visit."""
    reported = {(1, 200): {Sighting.of("right", "car", car(480.0).box)}}
    analyser = Analyser([DWELL], None, ByteTracker, reported)
    assert [event for one in stay(150.0) for event in analyser.step(one)] == []
    elsewhere = {(1, 200): {Sighting.of("right", "car", car(400.0).box), Sighting.of("other", "car", car(480.0).box)}}
    analyser = Analyser([DWELL], None, ByteTracker, elsewhere)
    assert len([event for one in stay(150.0) for event in analyser.step(one)]) == 1


def test_a_line_crossing_during_the_cooldown_is_not_reported() -> None:
    there_and_back = [*path(160.0, 480.0), *path(480.0, 160.0), *path(160.0, 480.0)]
    crossings = [event.data.details["direction"] for event in events_of(drive(*there_and_back), LINE)]
    assert crossings == ["forward", "backward", "forward"]
    quiet = LINE.model_copy(update={"cooldown_s": 3.0})
    assert [event.data.details["direction"] for event in events_of(drive(*there_and_back), quiet)] == [
        "forward",
        "forward",
    ]
    assert len(events_of(drive(*there_and_back), LINE.model_copy(update={"direction": "backward"}))) == 1


def test_a_zone_visit_that_begins_during_the_cooldown_is_reported_after_the_cooldown() -> None:
    """The car enters at 0.9 s, leaves, and returns for five minutes within the cooldown of 30 s."""
    rule = RIGHT.model_copy(update={"cooldown_s": 30.0})
    way = [*path(160.0, 480.0), *path(480.0, 160.0), *[car(160.0)] * 50, *path(160.0, 480.0), *[car(480.0)] * 3000]
    first, second = events_of(drive(*way), rule)
    assert first.data.incident == second.data.incident
    assert second.data.captured_ns - first.data.captured_ns == 30 * 10**9


CARS_ONLY = {"labels": ("car",)}


def test_a_line_crossing_is_reported_if_its_track_gets_the_right_label_soon_after() -> None:
    cars = LINE.model_copy(update=CARS_ONLY)
    way = path(160.0, 600.0)
    line_at = 8
    seen = [one.model_copy(update={"label": "truck"}) if n < 8 else one for n, one in enumerate(way)]
    (event,) = events_of(drive(*seen), cars)
    assert (event.data.label, event.data.details["direction"]) == ("car", "forward")
    assert event.data.seq > line_at + 3
    assert events_of(drive(*[one.model_copy(update={"label": "truck"}) for one in way]), cars) == []


def test_a_line_crossing_is_dropped_if_its_track_gets_the_right_label_much_later() -> None:
    cars = LINE.model_copy(update=CARS_ONLY)
    trucks = [one.model_copy(update={"label": "truck"}) for one in [*path(160.0, 480.0), *[car(480.0)] * 40]]
    assert events_of(drive(*trucks, *[car(480.0)] * 100), cars) == []


def test_a_line_crossing_with_low_scores_is_reported_when_the_score_rises() -> None:
    """The tracker follows the car with low scores. The crossing counts as soon as the score is high enough."""
    way = [car(x, score=0.2 if 280.0 < x < 380.0 else 0.9) for x in range(160, 500, 20)]
    assert len(events_of(drive(*way), LINE)) == 1
    assert (
        events_of(
            drive(*[car(x, score=0.55) for x in range(160, 500, 20)]), LINE.model_copy(update={"min_score": 0.6})
        )
        == []
    )


def test_detections_with_low_scores_still_show_whether_an_object_is_in_the_zone() -> None:
    hardly = [car(480.0, score=0.2)] * 30
    dwell = RIGHT.model_copy(update={"dwell_s": 4.0})
    (event,) = events_of(drive(*[car(480.0)] * 5, *hardly, *[car(480.0)] * 20), dwell)
    assert event.data.seq == 41
    out_and_in = [*path(480.0, 400.0), *(one.model_copy(update={"score": 0.2}) for one in path(280.0, 200.0))]
    back = [*path(220.0, 300.0), *path(340.0, 480.0)]
    assert len(events_of(drive(*[car(480.0)] * 5, *out_and_in, *back), RIGHT)) == 2


def test_a_zone_visit_is_reported_when_the_label_of_its_track_becomes_car() -> None:
    cars = RIGHT.model_copy(update=CARS_ONLY)
    seen = [*[car(480.0, label="truck")] * 5, *[car(480.0)] * 30]
    (event,) = events_of(drive(*seen), cars)
    assert event.data.label == "car"


def large(seq: int, *found: Detection) -> Result:
    """Return a result with the same detections in a picture of twice the size."""
    boxes = [one.model_copy(update={"box": Box(*(2 * edge for edge in one.box))}) for one in found]
    return result_at(seq, seq / FPS, *boxes, width=1280, height=720)


def test_a_zone_keeps_its_place_when_the_picture_size_changes() -> None:
    left_half = [large(n, car(200.0)) for n in range(10, 40)]
    assert events_of([*drive(*[car(200.0)] * 10), *left_half], RIGHT) == []
    right_half = [large(n, car(480.0)) for n in range(10, 40)]
    assert len(events_of([*drive(*[car(200.0)] * 10), *right_half], RIGHT)) == 1


def test_a_track_survives_a_change_of_the_picture_size_and_its_event_has_pixels_of_its_own_frame() -> None:
    way = path(160.0, 480.0)
    mixed = [large(n, one) if n % 3 else result_at(n, n / FPS, one) for n, one in enumerate(way)]
    (event,) = events_of(mixed, LINE)
    (plain,) = events_of(drive(*way), LINE)
    assert (event.id, event.data.seq) == (plain.id, plain.data.seq)
    assert event.data.seq % 3
    assert event.data.overlay.shape == ((640.0, 720.0), (640.0, 0.0))
    assert event.data.overlay.box == Box(*(2 * edge for edge in way[event.data.seq].box))
    assert event.data.overlay.trail[-1] == tuple(2 * at for at in way[event.data.seq].box.centre)


def test_a_result_of_a_picture_without_pixels_is_refused_and_the_next_result_is_processed() -> None:
    analyser = Analyser([LINE], None, ByteTracker)
    with pytest.raises(ValueError, match="0×360"):
        analyser.step(result_at(0, 0.0, width=0))
    events = [event for one in drive(*path(160.0, 480.0), first=1) for event in analyser.step(one)]
    assert len(events) == 1


def test_shapes_of_rules_are_scaled_to_the_picture_once_per_capture_run(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    monkeypatch.setattr("stream.analyse.rule.to_pixels", lambda points, *_: made.append(1) or points)
    events_of(drive(*[car(100.0)] * 50), LINE, RIGHT)
    assert len(made) == 2


def scenes_of(*results: Result) -> list[Scene]:
    RecordingRule.SCENES.clear()
    assert events_of(results, RecordingRule(name="r", camera="c", pipeline="p")) == []
    return list(RecordingRule.SCENES)


def test_an_evaluated_frame_has_its_confirmed_tracks_with_their_trails() -> None:
    *_, last = scenes_of(*drive(*path(160.0, 240.0)), large(5, car(260.0)))
    assert (last.frame, last.outcome, last.width, last.height) == ("1-5", "classified", 640, 360)
    assert (last.at_ns, round(last.gap_s, 6), last.missing) == (500_000_000, 0.1, {})
    (track,) = last.tracks
    assert (track.name, track.label, track.score, track.at_rest) == ("1-1-0", "car", 0.9, False)
    assert track.box == car(260.0).box
    assert [x for x, _ in track.trail] == [180.0, 200.0, 220.0, 240.0, 260.0]


def test_an_evaluated_frame_counts_the_missing_frames_before_it_by_reason() -> None:
    shed = [result_at(n, n / FPS, outcome="shed", reason="stale") for n in range(1, 11)]
    after = result_at(30, 3.0, car(480.0), withheld={"overload": 4, "rate": 10})
    first, second, third = scenes_of(result_at(0, 0.0, car(480.0)), *shed, after, result_at(31, 3.1, car(480.0)))
    assert (first.gap_s, first.missing) == (0.0, {})
    assert second.missing == {"stale": 10, "overload": 4, "rate": 10, "unknown": 5}
    assert (round(second.gap_s, 6), second.at_ns) == (3.0, 3 * 10**9)
    assert (round(third.gap_s, 6), third.missing) == (0.1, {})


def test_time_without_motion_does_not_count_as_a_gap_before_a_frame() -> None:
    still = result_at(101, 60.0, motion=(), outcome="empty", reason="still", withheld={"still": 100})
    _, scene = scenes_of(result_at(0, 0.0, car(480.0)), still)
    assert (scene.outcome, scene.tracks, scene.gap_s, scene.missing) == ("empty", (), 0.0, {"still": 100})


def test_a_capture_run_that_begins_with_a_still_frame_is_evaluated_without_tracks() -> None:
    (scene,) = scenes_of(result_at(0, 0.0, motion=(), outcome="empty", reason="still"))
    assert (scene.tracks, scene.width, scene.at_ns) == ((), 640, 0)
    assert scenes_of(result_at(0, 0.0, motion=(), outcome="empty", reason="still", width=0)) == []


class TestLowerEpoch:
    """A new spool, a corrected clock or a second agent gives a camera a lower epoch than before."""

    def test_results_with_a_lower_epoch_are_accepted_when_no_results_of_the_current_epoch_arrive(self) -> None:
        lower = [finished(31.0 + n, r) for n, r in enumerate(drive(*TO_LINE, *FROM_LINE, epoch=4))]
        found = events_of([result_at(0, 0.0, epoch=9), *lower], LINE)
        assert [(event.data.epoch, event.data.rule) for event in found] == [(4, "line")]

    def test_results_with_a_lower_epoch_are_accepted_after_enough_consecutive_results_of_that_epoch(self) -> None:
        empty = [result_at(n, n / FPS, epoch=4) for n in range(RUN_RECORDS)]
        lower = drive(*TO_LINE, *FROM_LINE, first=RUN_RECORDS, epoch=4)
        assert len(events_of([result_at(0, 0.0, epoch=9), *empty, *lower], LINE)) == 1

    def test_results_with_a_lower_epoch_that_arrive_among_results_of_the_current_epoch_make_no_events(self) -> None:
        lower = drive(*TO_LINE, *FROM_LINE, epoch=4)
        present = [result_at(n, n / FPS, epoch=9) for n in range(len(lower) + 1)]
        mixed = [one for pair in zip(present, lower, strict=False) for one in pair]
        assert events_of(mixed, LINE) == []

    def test_repeated_results_of_an_earlier_capture_run_are_never_accepted_as_a_new_run(self) -> None:
        earlier = drive(*TO_LINE, *FROM_LINE, epoch=4)
        repeats = [finished(100.0, one) for one in earlier]
        assert len(events_of([*earlier, result_at(0, 9.0, epoch=9), *repeats], LINE)) == 1


def finished(at_s: float, one: Result) -> Result:
    return one.model_copy(update={"finished_ns": one.finished_ns + round(at_s * 1e9)})


def test_a_changed_rule_begins_with_a_new_state_and_other_rules_keep_their_state() -> None:
    """Both rules report a visit after two seconds. One second into the visit, the second rule is changed."""
    kept = RIGHT.model_copy(update={"name": "kept", "dwell_s": 2.0})
    old = kept.model_copy(update={"name": "old", "sites": ("north",)})
    analyser = Analyser([kept, old], None, ByteTracker)
    visit = [result_at(seq, seq / FPS, car(480.0)) for seq in range(60)]
    first = [event for one in visit[:10] for event in analyser.step(one)]
    shared = kept.model_copy(update={"sites": ("north", "south")})
    analyser.use(
        [shared, old.model_copy(update={"severity": "critical"})],
        CameraConfig(name="c", source="simulated:road", site="yard"),
    )
    second = {event.data.rule: event for one in visit[10:] for event in analyser.step(one)}
    assert first == []
    assert second["old"].data.captured_ns - second["kept"].data.captured_ns == pytest.approx(1e9, abs=0.2e9)
    assert (second["old"].data.severity, second["kept"].data.site) == ("critical", "yard")


def van(x: float, label: str = "van", **change: Any) -> Detection:
    given = Attribute(name="type", label=label, score=0.8, model="vehicle@1")
    return car(x).model_copy(update={"attributes": (given.model_copy(update=change),)})


def test_an_event_has_the_majority_labels_of_its_track() -> None:
    """One frame in three is labelled wrongly, and one has no label."""
    frames = [van(160.0 + 20 * n, "car" if n % 3 == 1 else "van") for n in range(17)]
    frames[6] = van(280.0, "", score=0.0, missing="small")
    (event,) = events_of(drive(*frames), LINE)
    details = event.data.details
    assert (details["direction"], details["attributes.type"]) == ("forward", "van")
    assert 0.4 < float(details["attributes.type.score"]) < 0.8


def test_an_event_without_second_stage_models_has_no_attribute_in_its_details() -> None:
    (event,) = events_of(drive(*TO_LINE, *FROM_LINE), LINE)
    assert event.data.details == {"direction": "forward"}


@pytest.mark.parametrize(("wanted", "events"), [("van", 1), ("bus", 0)])
def test_line_and_zone_rules_apply_only_to_tracks_with_the_configured_attribute(wanted: str, events: int) -> None:
    frames = [van(160.0 + 20 * n) for n in range(17)]
    for rule in (LINE, RIGHT):
        narrow = rule.model_copy(update={"attributes": {"type": (wanted,)}})
        assert len(events_of(drive(*frames), narrow)) == events


def test_a_line_crossing_waits_for_the_label_of_a_second_stage_model() -> None:
    frames = [van(160.0 + 20 * n, "", score=0.0, missing="small") for n in range(12)]
    frames += [van(400.0 + 20 * n) for n in range(5)]
    narrow = LINE.model_copy(update={"attributes": {"type": ("van",)}})
    (event,) = events_of(drive(*frames), narrow)
    assert event.data.details["attributes.type"] == "van"


@pytest.mark.parametrize(
    ("clip", "requested"),
    [
        (None, None),
        (ClipConfig(before_s=0.0, after_s=0.0), None),
        (ClipConfig(before_s=2.0, boxes=True), ClipRequest(before_s=2.0, after_s=10.0, boxes=True)),
    ],
)
def test_an_event_requests_the_clip_of_its_rule(clip: ClipConfig | None, requested: ClipRequest | None) -> None:
    (event,) = events_of(drive(*path(160.0, 500.0)), LINE.model_copy(update={"clip": clip}))
    assert event.data.clip == requested


def test_positions_on_the_ground_are_measured_through_the_lens_of_the_camera() -> None:
    ground = GroundConfig(corners=((0.2, 0.9), (0.8, 0.9), (0.6, 0.5), (0.4, 0.5)), width_m=4.0, length_m=9.0)
    lens = LensConfig(width=640, height=360, fx=420, fy=420, cx=320, cy=180, distortion=(-0.28, 0.09, 0.0, 0.0))
    plain = YARD.model_copy(update={"ground": ground})
    curved = plain.model_copy(update={"lens": lens})
    analyser, found = Analyser([LINE], None, ByteTracker), []
    for seq, camera in enumerate((curved, plain, curved)):
        analyser.use([LINE], camera)
        list(analyser.step(result_at(seq, seq / FPS, car(100.0))))
        assert analyser.scene is not None
        assert analyser.scene.ground is not None
        found.append(analyser.scene.ground.to_metres((600.0, 330.0)))
    assert found[0] == found[2] != found[1]
