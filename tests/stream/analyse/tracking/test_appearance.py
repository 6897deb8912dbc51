"""Tests of re-identification by appearance: lost tracks that return, tracks that must not, and the rules that see
them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.contract.codec import decode_json, encode
from ingest.contract.identity import LIVE
from ingest.contract.records import Attribute, Box, Detection, Embedding, Event, FrameRef, Result
from ingest.contract.topics import EVENTS, RESULTS
from ingest.kafka.log import Outgoing, TopicPartition
from ingest.kafka.memorylog import MemoryLog
from ingest.runtime.clock import ManualClock
from ingest.site import AppearanceConfig, CameraConfig, MeasureConfig, PipelineConfig, SecondModelConfig
from ingest.site.topic.view import Config
from stream.analyse.analyser import Analyser
from stream.analyse.analysers import Analysers, RuleSet
from stream.analyse.measures.meters import ZoneMeter, values
from stream.analyse.rule import TAIL_S, CameraRule
from stream.analyse.rules.count import CountRule
from stream.analyse.rules.line import LineRule
from stream.analyse.rules.products.jam import JamRule
from stream.analyse.rules.security.running import RunningRule
from stream.analyse.rules.security.tailgating import TailgatingRule
from stream.analyse.rules.security.unattended import UnattendedRule
from stream.analyse.rules.traffic.red_light import RedLightRule
from stream.analyse.rules.traffic.section import SectionRule
from stream.analyse.rules.traffic.wrong_way import WrongWayRule
from stream.analyse.rules.zone import ZoneRule
from stream.analyse.stage import AnalyseStage
from stream.analyse.tracking import appearance
from stream.analyse.tracking.appearance import AppearanceMemory
from stream.analyse.tracking.paths import TRACK_IDLE_S
from stream.analyse.tracking.stationary import FrameView, StationaryTracks
from stream.analyse.tracking.tracker import ByteTracker, Track
from stream.analyse.verdict import untracked
from stream.readback import tail

FPS = 5
LOOK = "look"
SETTINGS = AppearanceConfig(second_model=LOOK, min_similarity=0.9, min_lead=0.05, window_s=30.0)
OF: dict[str, Any] = {"camera": "c", "pipeline": "p"}
WHOLE = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))
LINE = LineRule(name="line", **OF, start=(0.5, 1.0), end=(0.5, 0.0))
ZONE = ZoneRule(name="zone", **OF, polygon=WHOLE, dwell_s=8.0)
RED, BLUE, GREEN = (1.0, 0.1, 0.0, 0.2), (0.1, 1.0, 0.1, 0.0), (0.0, 0.1, 1.0, 0.1)
COVERED = (0.75, 0.1, 0.65, 0.2)
"""Embedding of a partly covered person, with a similarity of 0.75 to ``RED``."""

Person = tuple[float, Sequence[float] | None]
"""Horizontal place of a person's centre in a picture of 640 pixels, and the embedding; None without an embedding."""


def person(x: float, look: Sequence[float] | None, y: float = 180.0, model: str = "m@1") -> Detection:
    vector = np.array(look if look is not None else (), np.float64)
    numbers = np.round(127 * vector / np.abs(vector).max()).astype(np.int8) if vector.size else vector
    embeddings = (Embedding(name=LOOK, model=model, values=numbers.tobytes()),) if vector.size else ()
    box = Box(x - 20.0, y - 50.0, x + 20.0, y + 50.0)
    return Detection(box=box, label="person", class_id=0, score=0.9, embeddings=embeddings)


def result(seq: int, *found: Detection, epoch: int = 1, fps: float = FPS) -> Result:
    return Result(
        camera="c",
        epoch=epoch,
        seq=seq,
        lane=LIVE,
        pipeline="p",
        pipelines=("p",),
        captured_ns=10**18 + round(seq / fps * 1e9),
        finished_ns=10**18,
        width=640,
        height=360,
        source=FrameRef("frames", 0, seq),
        outcome="classified",
        detections=found,
    )


class Watched:
    """An analyser, and the names of the tracks in each frame."""

    def __init__(self, *rules: CameraRule, settings: AppearanceConfig | None = SETTINGS, measures: Any = ()) -> None:
        self.analyser = Analyser(rules, None, ByteTracker, measures=measures, appearance=settings)
        self.events: list[Event] = []
        self.seq = -1

    def see(self, *found: Detection, frames: int = 1) -> list[str]:
        """Process frames with the same detections, and return the names of the tracks in the last frame."""
        for _ in range(frames):
            self.seq += 1
            self.events += self.analyser.step(result(self.seq, *found))
        return [track.name for track in self.analyser.scene.tracks] if self.analyser.scene else []

    def walk(self, start: float, stop: float, look: Sequence[float] | None, *others: Detection) -> list[str]:
        """Let a person walk at 100 pixels per second, and return the names of the tracks in the last frame."""
        names, steps = [], max(1, round(abs(stop - start) / 100 * FPS))
        for n in range(steps + 1):
            names = self.see(person(start + (stop - start) * n / steps, look), *others)
        return names

    def wait(self, seconds: float, *found: Detection) -> list[str]:
        return self.see(*found, frames=round(seconds * FPS))


@pytest.mark.parametrize("hidden_s", [2.0, 8.0, 15.0, 29.0])
def test_a_track_that_returns_within_the_window_keeps_its_name(hidden_s: float) -> None:
    watched = Watched()
    (before,) = watched.walk(150.0, 300.0, RED)
    watched.wait(hidden_s)
    assert watched.walk(340.0, 500.0, RED) == [before]


def test_without_the_setting_a_lost_track_gets_another_name() -> None:
    watched = Watched(settings=None)
    (before,) = watched.walk(150.0, 300.0, RED)
    watched.wait(4.0)
    assert watched.walk(340.0, 500.0, RED) != [before]


@pytest.mark.parametrize(("look", "hidden_s"), [(BLUE, 4.0), (None, 4.0), (RED, 31.0)])
def test_another_look_or_no_embedding_or_a_return_after_the_window_gets_another_name(
    look: Sequence[float] | None, hidden_s: float
) -> None:
    watched = Watched()
    (before,) = watched.walk(150.0, 300.0, RED)
    watched.wait(hidden_s)
    (after,) = watched.walk(340.0, 500.0, look)
    assert after != before


def test_embeddings_of_another_model_version_are_not_compared() -> None:
    watched = Watched()
    (before,) = watched.walk(150.0, 300.0, RED)
    watched.wait(4.0)
    (after,) = watched.see(person(340.0, RED, model="m@2"), frames=3)
    assert after != before


def test_people_who_look_different_get_their_names_back_in_any_order() -> None:
    watched = Watched()
    both = watched.see(person(200.0, RED), person(400.0, BLUE), frames=10)
    watched.wait(5.0)
    (blue,) = watched.see(person(300.0, BLUE), frames=3)
    red = set(watched.see(person(300.0, BLUE), person(500.0, RED), frames=3)) - {blue}
    assert (red, blue) == ({both[0]}, both[1])


def test_of_two_lost_people_who_look_alike_none_is_reidentified() -> None:
    watched = Watched()
    both = watched.see(person(200.0, RED), person(400.0, RED), frames=10)
    watched.wait(5.0)
    assert not set(watched.see(person(200.0, RED), frames=3)) & set(both)


def test_a_person_who_looks_like_a_visible_person_is_not_reidentified() -> None:
    watched = Watched()
    both = watched.see(person(200.0, RED), person(400.0, RED), frames=10)
    watched.wait(5.0, person(400.0, RED))
    after = watched.see(person(200.0, RED), person(400.0, RED), frames=3)
    assert after[0] in both
    assert after[1] not in both


def test_two_people_who_look_alike_and_appear_together_do_not_get_the_name_of_one_lost_track() -> None:
    watched = Watched()
    (before,) = watched.see(person(200.0, RED), frames=10)
    watched.wait(5.0)
    assert before not in watched.see(person(150.0, RED), person(450.0, RED), frames=3)


def test_two_people_who_appear_together_never_share_a_number_even_without_a_minimum_lead() -> None:
    watched = Watched(settings=SETTINGS.model_copy(update={"min_lead": 0.0}))
    (before,) = watched.see(person(200.0, RED), frames=10)
    watched.wait(5.0)
    names = watched.see(person(150.0, RED), person(450.0, RED), frames=3)
    assert len(set(names)) == 2
    assert before in names


def test_a_person_who_is_not_tracked_yet_competes_for_a_lost_track() -> None:
    watched = Watched()
    (before,) = watched.see(person(200.0, RED), frames=10)
    watched.wait(5.0)
    watched.see(person(150.0, RED))
    assert before not in watched.see(person(150.0, RED), person(450.0, RED), frames=3)


def test_a_track_older_than_the_window_still_competes_with_a_similar_track_lost_later() -> None:
    watched = Watched()
    both = watched.see(person(200.0, RED), person(400.0, RED), frames=10)
    watched.wait(20.0, person(400.0, RED))
    watched.wait(12.0)
    assert not set(watched.see(person(200.0, RED), frames=3)) & set(both)


@pytest.mark.parametrize("away_s", [4.0, TRACK_IDLE_S + 5.0])
def test_a_person_who_has_left_the_picture_gets_another_name_on_coming_back(away_s: float) -> None:
    watched = Watched()
    (before,) = watched.walk(300.0, 630.0, RED)
    watched.wait(away_s)
    (after,) = watched.walk(630.0, 300.0, RED)
    assert after != before


def test_a_person_who_has_left_returns_if_the_configuration_says_so() -> None:
    watched = Watched(settings=SETTINGS.model_copy(update={"also_left": True}))
    (before,) = watched.walk(300.0, 630.0, RED)
    watched.wait(4.0)
    assert watched.walk(630.0, 300.0, RED) == [before]


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


def test_a_second_box_of_the_same_person_does_not_compete() -> None:
    watched = Watched()
    (before,) = watched.see(person(200.0, RED), frames=10)
    watched.wait(5.0)
    upper = person(300.0, RED).model_copy(update={"box": Box(283.0, 131.0, 317.0, 180.0), "score": 0.2})
    assert watched.see(person(300.0, RED), upper, frames=2) == [before]


def test_a_person_beside_an_untracked_person_who_looks_alike_waits_until_the_other_is_gone() -> None:
    watched = Watched()
    (before,) = watched.see(person(200.0, RED), frames=10)
    watched.wait(5.0)
    watched.see(person(150.0, RED))
    assert watched.see(person(150.0, RED), person(450.0, RED)) == []
    assert watched.see(person(150.0, RED)) == [before]


# Rules and tracks that wait


def waits_for_a_lost_person(*rules: CameraRule, settings: AppearanceConfig | None = SETTINGS, **of: Any) -> Watched:
    """Return an analyser that has lost a person in red."""
    watched = Watched(*rules, settings=settings, **of)
    watched.see(person(100.0, RED, y=60.0), frames=10)
    watched.wait(5.0)
    return watched


def crossing(watched: Watched) -> int:
    """Let a covered person cross the line in the middle of the picture, and return the number of the first frame."""
    for x in (280.0, 290.0, 310.0, 330.0, 350.0):
        watched.see(person(x, COVERED))
    return watched.seq - 4


MEASURE = MeasureConfig(name="line", type="line", **OF, start=LINE.start, end=LINE.end)
HALL = MeasureConfig(name="hall", type="zone", **OF, polygon=WHOLE)


def measured(watched: Watched, config: MeasureConfig) -> dict[str, float]:
    """Return the sums of a measure's current minute."""
    return next(dict(one.clock.sums.sums) for one in watched.analyser._meters if one.config == config)


def test_a_person_who_crosses_a_line_while_waiting_is_counted_in_the_frame_of_the_crossing() -> None:
    watched = waits_for_a_lost_person(LINE, measures=[MEASURE])
    first = crossing(watched)
    assert watched.events == []
    watched.see(person(370.0, COVERED), frames=4)
    (event,) = watched.events
    assert (event.data.seq, event.data.track) == (first + 4, f"1-{first + 1}-0")
    assert event.data.overlay.box == person(350.0, None).box
    assert measured(watched, MEASURE)["person.forward"] == 1.0


def test_a_person_who_crosses_a_line_while_waiting_and_is_then_recognised_is_counted_once() -> None:
    watched = waits_for_a_lost_person(LINE)
    first = crossing(watched)
    watched.see(person(370.0, RED), frames=4)
    (event,) = watched.events
    assert (event.data.seq, event.data.track) == (first + 4, "1-1-0")


def test_an_object_that_disappears_while_it_waits_is_reported_and_measured() -> None:
    watched = waits_for_a_lost_person(LINE, ZONE.model_copy(update={"dwell_s": 0.5}), measures=[MEASURE, HALL])
    watched.events.clear()
    first = crossing(watched)
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
    watched = waits_for_a_lost_person(LINE)
    crossing(watched)
    then = result(watched.seq + 10 * FPS).model_copy(
        update={"outcome": "empty", "motion": (), "withheld": {"still": 10 * FPS - 1}}
    )
    events = watched.analyser.step(then if last == "still" else result(0, epoch=2))
    assert [(one.data.rule, one.data.seq, one.data.epoch) for one in events] == [("line", watched.seq, 1)]


def test_a_switch_of_the_configuration_ends_a_wait() -> None:
    watched = waits_for_a_lost_person(LINE)
    crossing(watched)
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
    watched = waits_for_a_lost_person(UnattendedRule(name="alone", **joined, polygon=WHOLE), jam)
    watched.analyser.take_signals()
    first = crossing(watched)
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
    watched = waits_for_a_lost_person(RedLightRule(name="red", **joined, start=LINE.start, end=LINE.end))
    watched.analyser.take_signals()
    first = crossing(watched)
    watched.see(person(370.0, COVERED), frames=4)
    (one,) = [one for one in watched.analyser.take_signals() if one.candidates]
    (candidate,) = one.candidates
    assert one.seq > first + 4 == candidate.event.data.seq
    assert result(first + 2).captured_ns < candidate.since_ns < result(first + 3).captured_ns


def test_a_red_light_crossing_of_a_track_that_waits_until_a_new_epoch_goes_out_with_the_next_signal() -> None:
    joined: dict[str, Any] = {**OF, "sensor": "light", "above": 0.5}
    watched = waits_for_a_lost_person(RedLightRule(name="red", **joined, start=LINE.start, end=LINE.end))
    first = crossing(watched)
    watched.analyser.take_signals()
    watched.analyser.step(result(0, epoch=2))
    watched.analyser.step(result(1, epoch=2))
    found = [
        (one.epoch, candidate.event.data) for one in watched.analyser.take_signals() for candidate in one.candidates
    ]
    assert [(epoch, data.epoch, data.seq) for epoch, data in found] == [(2, 1, first + 4)]


def test_a_person_lost_at_the_edge_during_a_gap_without_frames_returns() -> None:
    watched = Watched()
    (before,) = watched.walk(300.0, 630.0, RED)
    watched.seq += 4 * FPS
    assert watched.walk(630.0, 300.0, RED) == [before]


def test_a_person_who_is_lost_again_right_after_the_return_has_not_left() -> None:
    """The way out of sight is no step: another such step would lead out of the picture."""
    watched = Watched()
    (before,) = watched.see(person(200.0, RED), frames=10)
    watched.wait(5.0)
    assert watched.see(person(450.0, RED), frames=2) == [before]
    watched.wait(5.0)
    assert watched.see(person(450.0, RED), frames=2) == [before]


def test_a_new_epoch_begins_without_lost_tracks() -> None:
    watched = Watched()
    (before,) = watched.see(person(200.0, RED), frames=10)
    for seq in range(10):
        watched.analyser.step(result(seq, person(200.0, RED), epoch=2))
    assert watched.analyser.scene
    assert [track.name for track in watched.analyser.scene.tracks] == ["2-1-0"] != [before]


def test_the_label_attributes_and_number_of_frames_of_a_returning_track_continue() -> None:
    watched = Watched()
    wears = [Attribute(name="wears", label=label, score=0.9) for label in ("coat", "shirt")]
    before = person(200.0, RED).model_copy(update={"attributes": (wears[0],)})
    after = person(200.0, RED).model_copy(update={"attributes": (wears[1],)})
    watched.see(before, frames=10)
    watched.wait(5.0)
    watched.see(after, frames=2)
    watched.see(after.model_copy(update={"label": "bus"}), frames=3)
    assert watched.analyser.scene
    (shown,) = watched.analyser.scene.tracks
    assert (shown.label, shown.attributes["wears"].label) == ("person", "coat")
    (target,) = watched.analyser._tracker._targets  # type: ignore[attr-defined]
    assert target.track.frames == 9 + 4


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


@pytest.mark.parametrize("label", ["car", "suitcase"])
def test_an_object_with_another_label_does_not_get_the_number_of_a_lost_person(label: str) -> None:
    watched = Watched()
    (before,) = watched.see(person(200.0, RED), frames=10)
    watched.wait(5.0)
    other = person(200.0, RED).model_copy(update={"label": label})
    (after,) = watched.see(other, frames=2)
    assert after != before


def test_a_mean_of_many_embeddings_outweighs_the_last_embeddings_before_an_occlusion() -> None:
    watched = Watched()
    (before,) = watched.see(person(200.0, RED), frames=30)
    watched.see(person(200.0, BLUE), frames=3)
    watched.wait(5.0)
    assert watched.see(person(200.0, RED), frames=3) == [before]


def test_the_number_of_kept_embeddings_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(appearance, "MAX_KNOWN", 8)
    watched = Watched()
    rng = np.random.default_rng(3)
    for n in range(30):
        watched.see(person(100.0 + 400 * (n % 2), rng.normal(size=32), y=60.0 + 200 * (n // 2 % 2)), frames=3)
    memory = watched.analyser._memory
    assert memory is not None
    assert memory.size == 8


def test_embeddings_are_dropped_after_two_windows_also_while_nothing_moves() -> None:
    watched = Watched()
    watched.see(person(200.0, RED), frames=10)
    memory = watched.analyser._memory
    assert memory is not None
    assert memory.size == 1
    still = result(watched.seq + 61 * FPS).model_copy(
        update={"outcome": "empty", "motion": (), "withheld": {"still": 61 * FPS - 1}}
    )
    watched.analyser.step(still)
    assert memory.size == 0


# The rules


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
    measure = MeasureConfig(name="hall", type="zone", **OF, polygon=WHOLE)
    watched = Watched(settings=settings, measures=[measure])
    watched.see(person(200.0, RED), frames=6 * FPS)
    watched.wait(12.0)
    watched.see(person(260.0, RED), frames=10 * FPS)
    watched.walk(260.0, 635.0, RED)
    watched.wait(70.0)
    minutes = [values(one.tally, measure) for one in watched.analyser.closed_minutes()]
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


def test_rules_about_movements_and_times_at_lines_do_not_use_the_path_out_of_sight() -> None:
    section = SectionRule(
        name="bridge",
        **OF,
        first=((0.4, 0.0), (0.4, 1.0)),
        second=((0.6, 0.0), (0.6, 1.0)),
        distance_m=20.0,
        above_km_h=0.0,
    )
    rules = (
        section,
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


def test_a_crossing_at_a_red_light_counts_only_if_it_was_seen() -> None:
    rule = RedLightRule(name="red", **OF, sensor="light", above=0.5, start=LINE.start, end=LINE.end)
    watched = Watched(rule)
    watched.walk(150.0, 290.0, RED)
    watched.wait(5.0)
    (name,) = watched.walk(360.0, 500.0, RED)
    assert [one for one in watched.analyser.take_signals() if one.candidates] == []
    watched.walk(500.0, 200.0, RED)
    (candidate,) = [candidate for one in watched.analyser.take_signals() for candidate in one.candidates]
    assert (candidate.event.data.track, name) == (name, "1-1-0")


# Restarts and properties


def site(*rules: CameraRule) -> Config:
    second = SecondModelConfig(name=LOOK, model="look@1")
    pipeline = PipelineConfig(name="p", model="m", width=64, height=64, then=(second,), appearance=SETTINGS)
    entries = (CameraConfig(name="c", source="simulated:road"), pipeline, *rules)
    return Config({entry.key: entry for entry in entries})


RULES = RuleSet([LINE], pipelines=site().of(PipelineConfig))

Written = list[tuple[int, bytes]]
"""Events, each with the offset of the result that completed it."""


async def stored(frames: Iterable[Result]) -> MemoryLog:
    log = MemoryLog(partitions=1, clock=ManualClock())
    for one in frames:
        await log.produce(Outgoing(RESULTS, 0, encode(one)))
    return log


async def analysed(log: MemoryLog, start: int) -> Written:
    """Return the events of a worker that begins at an offset."""
    processor = await AnalyseStage(site(LINE), 1).open(TopicPartition(RESULTS, 0), start, log)
    found = []
    async for record in log.read(RESULTS, 0, start, (await log.ends(RESULTS))[0]):
        found += [(record.offset, out.value) for work in processor.process(record) for out in work.records]
    return found


def hidden_between_crossings(
    first: int, look: Sequence[float] = RED, on_return: Sequence[float] | None = None
) -> list[Result]:
    """Return results from the number ``first`` on, of a person who crosses the line, is hidden for 15 s, and crosses
    it again, at first with the embedding ``on_return`` if given."""
    frames = [result(first + n, person(150.0 + 4 * n, look)) for n in range(60)]
    frames += [result(first + 60 + n) for n in range(15 * FPS)]
    first += len(frames)
    return frames + [
        result(first + n, person(330.0 - 6 * n, look if n > 4 or not on_return else on_return)) for n in range(40)
    ]


async def test_a_restart_at_any_time_gives_returning_tracks_the_same_names() -> None:
    log = await stored(hidden_between_crossings(0))
    whole = await analysed(log, 0)
    assert len(whole) == 2
    assert len({decode_json(Event, value).data.track for _, value in whole}) == 1
    for cut in (30, 70, 130, 136, 150):
        assert await analysed(log, cut) == [one for one in whole if one[0] >= cut]


async def test_a_restart_gives_the_same_names_if_the_beginning_of_the_log_is_not_read_back() -> None:
    early, nothing = hidden_between_crossings(0, BLUE), [result(175 + n, fps=FPS) for n in range(120 * FPS)]
    late = hidden_between_crossings(175 + 120 * FPS)
    log = await stored([*early, *nothing, *late])
    whole = await analysed(log, 0)
    assert len(whole) == 4
    for cut in (len(early) + len(nothing) + n for n in (130, 138, 150)):
        past = await tail(log, TopicPartition(RESULTS, 0), cut, RULES.history_point, RULES.longest_s)
        assert 0 < past[0].offset < len(early) + len(nothing)
        assert await analysed(log, cut) == [one for one in whole if one[0] >= cut]


async def test_a_restart_during_or_after_a_wait_reports_a_crossing_of_a_waiting_track_once() -> None:
    log = await stored(hidden_between_crossings(0, on_return=COVERED))
    whole = await analysed(log, 0)
    offset, value = whole[1]
    assert len(whole) == 2
    assert decode_json(Event, value).data.seq < offset
    for cut in range(135, 150):
        assert await analysed(log, cut) == [one for one in whole if one[0] >= cut]
    for _, value in whole:
        await log.produce(Outgoing(EVENTS, 0, value))
    for cut in range(135, 150):
        assert await analysed(log, cut) == []


def test_a_change_of_the_configuration_switches_reidentification_on_and_off() -> None:
    config = site(LINE)
    of = config.of(LineRule), [], []
    present = [RuleSet(*of)]
    analysers = Analysers(lambda: present[0], ByteTracker)
    seen, seq = list[str](), 0

    def see(*found: Detection, frames: int) -> None:
        nonlocal seq
        for _ in range(frames):
            seen.extend(one.data.track for one in analysers.step(result(seq, *found)))
            seq += 1

    def hidden_between_crossings() -> set[str]:
        seen.clear()
        for x in range(240, 400, 20):
            see(person(x, RED), frames=1)
        see(frames=4 * FPS)
        for x in range(400, 240, -20):
            see(person(x, RED), frames=1)
        see(frames=40 * FPS)
        return set(seen)

    assert len(hidden_between_crossings()) == 2
    present[0] = RuleSet(*of, pipelines=config.of(PipelineConfig))
    assert len(hidden_between_crossings()) == 1
    present[0] = RuleSet(*of)
    assert len(hidden_between_crossings()) == 2


def test_the_results_that_are_read_back_at_a_restart_also_cover_the_tracks_that_may_return() -> None:
    config = site(LINE)
    rules, pipelines = config.of(LineRule), config.of(PipelineConfig)
    assert RuleSet(rules).longest_s == TAIL_S
    assert RuleSet(rules, pipelines=pipelines).longest_s == TAIL_S + 2 * SETTINGS.window_s


looks = st.sampled_from([RED, COVERED, BLUE, GREEN, (0.9, 0.3, 0.1, 0.2), (-1.0, 0.2, 0.1, 0.5)])


@st.composite
def walks(draw: st.DrawFn) -> list[list[Detection]]:
    """Draw the detections of 40 frames: people who stand, vanish, and appear elsewhere with one of a few looks."""
    chance = draw(st.randoms(use_true_random=False))
    people = {n: (60.0 + 90 * n, draw(looks)) for n in range(draw(st.integers(1, 6)))}
    shown, frames = set(people), []
    for _ in range(40):
        for n in people:
            if chance.random() < 0.08:
                shown ^= {n}
                if chance.random() < 0.5:
                    people[n] = (chance.uniform(60.0, 580.0), people[n][1])
        frames.append([person(*people[n], y=60.0 + 25 * n) for n in sorted(shown)])
    return frames


configs = st.builds(
    AppearanceConfig,
    second_model=st.just(LOOK),
    min_similarity=st.sampled_from([0.1, 0.9]),
    min_lead=st.sampled_from([0.0, 0.05]),
    window_s=st.sampled_from([3.0, 30.0]),
    also_left=st.booleans(),
)


def names(frames: Iterable[Sequence[Detection]], fps: float, config: AppearanceConfig) -> list[list[str]]:
    analyser, found = Analyser([LINE, ZONE], None, ByteTracker, appearance=config), list[list[str]]()
    for seq, detections in enumerate(frames):
        analyser.step(result(seq, *detections, fps=fps))
        found.append([track.name for track in analyser.scene.tracks] if analyser.scene else [])
        followed = [target.track.name for target in analyser._tracker._targets if target.track]  # type: ignore[attr-defined]
        assert len(followed) == len(set(followed))
    return found


@given(frames=walks(), fps=st.sampled_from([1.0, 2.0, 5.0]), config=configs)
@settings(max_examples=60)
def test_no_two_tracks_have_one_name_and_the_same_frames_give_the_same_names(
    frames: list[list[Detection]], fps: float, config: AppearanceConfig
) -> None:
    found = names(frames, fps, config)
    for each in found:
        assert len(each) == len(set(each))
        assert each == sorted(each)
    assert names(frames, fps, config) == found


@given(frames=walks())
@settings(max_examples=40)
def test_tracks_that_wait_and_never_return_have_the_same_events_and_measures_as_without_reidentification(
    frames: list[list[Detection]],
) -> None:
    def run(config: AppearanceConfig | None) -> tuple[set[str], dict[str, float]]:
        rules = (LINE, ZONE.model_copy(update={"dwell_s": 0.6}))
        watched = Watched(*rules, settings=config, measures=[MEASURE, HALL])
        for detections in frames:
            watched.see(*detections)
        watched.wait(3.0)
        sums = {
            name: value for name, value in measured(watched, HALL).items() if "entries" in name or "exits" in name
        }
        return {one.model_dump_json() for one in watched.events}, sums

    with patch.object(AppearanceMemory, "_match", return_value=None):
        assert run(SETTINGS) == run(None)


def test_a_site_file_configures_reidentification_by_the_name_of_a_second_model() -> None:
    with pytest.raises(ValueError, match="expected the name of a second model in then: this pipeline has none"):
        PipelineConfig(name="p", model="m", width=64, height=64, appearance=SETTINGS)


def test_a_stationary_track_that_returns_continues_as_the_new_track_object() -> None:
    box, still = Box(100.0, 100.0, 160.0, 200.0), StationaryTracks()
    view = FrameView((), (box,), (box,))
    before, after = Track("t", box, 0.9), Track("t", box, 0.8)
    still.seen(before, view, 0.0, 0)
    still.seen(after, view, 3.0, 3 * 10**9)
    (held,) = still.hold(["t"], 4.0)
    assert held is after


def test_a_moving_part_of_a_stationary_object_has_no_embedding_because_it_may_be_another_object() -> None:
    box, still = Box(100.0, 100.0, 160.0, 200.0), StationaryTracks()
    still.seen(Track("t", box, 0.9), FrameView((), (box,), (box,)), 0.0, 0)
    part = person(130.0, RED).model_copy(update={"box": Box(105.0, 105.0, 130.0, 160.0)})
    (merged,) = still.merged([part], FrameView((part.box,), (), ()))
    assert (merged.box, merged.embeddings) == (box, ())
