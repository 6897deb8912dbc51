"""Tests of the rule ``count``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from pydantic import ValidationError

from ingest.contract.codec import decode_json
from ingest.contract.records import Box, Detection, Event, Result
from ingest.contract.topics import EVENTS
from ingest.kafka.memorylog import MemoryLog
from ingest.site import CameraConfig, PipelineConfig
from ingest.site.topic.view import Config
from stream import readback
from stream.analyse.occurrence import SETTLE_FRAMES
from stream.analyse.rule import SceneHappening
from stream.analyse.rules.count import CountRule, CountWatch
from stream.analyse.stage import AnalyseStage
from stream.analyse.tracking.tracker import LOST_S
from tests.stream.analyse.owners import log_of, outputs
from tests.stream.analyse.results import result_at
from tests.stream.analyse.rules.scenes import scene, track

SQUARE = tuple((x / 640, y / 360) for x, y in ((100, 100), (200, 100), (200, 200), (100, 200)))
STEP_S = 0.5
RULE = CountRule(name="yard", camera="c", pipeline="p", polygon=SQUARE, labels=("person",), at_least=3, for_s=5.0)


def rule(**settings: Any) -> CountRule:
    return CountRule.model_validate({**RULE.model_dump(exclude_none=True), **settings})


def persons(count: int, x: float = 150.0, **fields: Any) -> list[Any]:
    return [track(x, 110.0 + 10 * n, f"t{n}", "person", **fields) for n in range(count)]


def watched(state: CountWatch, counts: Iterable[int], first: int = 0) -> list[tuple[int, tuple[SceneHappening, int]]]:
    """Process one scene for each of ``counts``, the number of persons inside the polygon.

    Return the indices of the scenes with a happening, and the happenings.
    """
    found = []
    for n, count in enumerate(counts, first):
        found += [(n, one) for one in state.observe(scene(n * STEP_S, *persons(count), gap_s=STEP_S), ())]
    return found


def indices(state: CountWatch, counts: Iterable[int]) -> list[int]:
    return [n for n, _ in watched(state, counts)]


def test_a_count_is_reported_once_after_it_has_met_its_bound_for_the_configured_time() -> None:
    ((index, (happening, number)),) = watched(RULE.watch(640, 360), [2, 2, *[3] * 30])
    assert (index, number) == (12, 1)
    assert happening.summary == "3 person in yard for 5.0 s, at least 3"
    assert happening.details == {"count": 3, "lasted_s": 5.0}
    assert (happening.track, happening.label, happening.occurrence) == (None, "person", f"1-{10**9}")


def test_a_count_rule_with_at_most_0_reports_an_empty_zone() -> None:
    empty = CountRule(name="desk", camera="c", pipeline="p", polygon=SQUARE, at_most=0, for_s=2.0)
    ((index, (happening, _)),) = watched(empty.watch(640, 360), [1, 1, *[0] * 20])
    assert (index, happening.summary) == (6, "0 objects in desk for 2.0 s, at most 0")


def test_a_count_rule_counts_only_matching_tracks_inside_its_polygon() -> None:
    state = RULE.watch(640, 360)
    others = [*persons(3, x=300.0), track(150.0, 150.0, "car"), track(150.0, 150.0, "far", "person", score=0.1)]
    for n in range(30):
        assert state.observe(scene(n * STEP_S, *persons(2), *others, gap_s=STEP_S), ()) == []
    resting = persons(3, at_rest=True)
    assert sum(len(state.observe(scene(20 + n * STEP_S, *resting, gap_s=STEP_S), ())) for n in range(30)) == 1


def test_a_flickering_count_is_reported_once_and_a_count_that_rises_again_is_reported_twice() -> None:
    flicker = [3] * 6 + [2] * (SETTLE_FRAMES - 1) + [3] * 30
    assert indices(RULE.watch(640, 360), flicker) == [10]
    falls = [*[3] * 15, *[2] * SETTLE_FRAMES, *[3] * 15]
    first, second = watched(RULE.watch(640, 360), falls)
    assert (first[0], second[0]) == (10, 15 + SETTLE_FRAMES + 10)
    assert first[1][0].occurrence != second[1][0].occurrence


def test_a_count_that_meets_its_bound_for_less_than_the_configured_time_is_not_reported() -> None:
    assert indices(RULE.watch(640, 360), [*[3] * 10, *[2] * SETTLE_FRAMES] * 3) == []


def test_a_count_that_meets_its_bound_in_a_single_frame_is_not_reported() -> None:
    now = rule(for_s=0.0)
    assert indices(now.watch(640, 360), [2, 3, 2, 2, 2, 3, 2, 2, 2]) == []
    assert indices(now.watch(640, 360), [2, 3, 3, 3, 3]) == [SETTLE_FRAMES]


def test_a_reported_count_ends_only_beyond_the_hysteresis() -> None:
    sways = [*[3] * 15, *[2] * 15, *[3] * 15, *[1] * SETTLE_FRAMES, *[3] * 15]
    assert indices(rule(hysteresis=1).watch(640, 360), sways) == [10, 45 + SETTLE_FRAMES + 10]
    assert indices(rule().watch(640, 360), sways) == [10, 40, 45 + SETTLE_FRAMES + 10]


def test_hysteresis_does_not_widen_the_bound_before_a_count_is_reported() -> None:
    assert indices(rule(hysteresis=1).watch(640, 360), [3, 3, 3, *[2] * 30]) == []


def test_a_count_that_meets_its_bound_during_the_cooldown_is_reported_afterwards_if_it_lasts() -> None:
    """The first occurrence is reported at 5 s, and the cooldown ends at 65 s."""
    again = [*[3] * 15, *[0] * SETTLE_FRAMES, *[3] * 20, *[0] * SETTLE_FRAMES, *[3] * 120]
    assert indices(rule(cooldown_s=60.0).watch(640, 360), again) == [10, 130]


@pytest.mark.parametrize(("gap_s", "index"), [(LOST_S, 10), (LOST_S + 0.1, 15)])
def test_a_gap_of_unseen_frames_restarts_the_time_for_which_a_count_has_met_its_bound(
    gap_s: float, index: int
) -> None:
    state = RULE.watch(640, 360)
    gaps = [gap_s if n == 5 else STEP_S for n in range(30)]
    found = [state.observe(scene(n * STEP_S, *persons(3), gap_s=gap), ()) for n, gap in enumerate(gaps)]
    assert [n for n, one in enumerate(found) if one] == [index]


def test_a_gap_of_unseen_frames_does_not_end_a_reported_count() -> None:
    state = RULE.watch(640, 360)
    assert len(watched(state, [3] * 15)) == 1
    assert state.observe(scene(100.0, gap_s=92.0), ()) == []  # no track is confirmed yet
    assert watched(state, [3] * 30, first=201) == []


@pytest.mark.parametrize("bounds", [{}, {"at_least": 2, "at_most": 5}, {"at_least": 0}, {"at_most": -1}])
def test_a_count_rule_without_exactly_one_bound_is_refused(bounds: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        CountRule(name="r", camera="c", pipeline="p", polygon=SQUARE, **bounds)


FPS = 2
SITE = Config(
    {
        entry.key: entry
        for entry in (
            CameraConfig(name="c", source="simulated:road"),
            PipelineConfig(name="p", model="m", width=64, height=64),
            rule(for_s=100.0),
        )
    }
)


def result(seq: int, xs: Sequence[float]) -> Result:
    boxes = [Box(x - 30.0, 110.0 + 25 * n, x + 30.0, 130.0 + 25 * n) for n, x in enumerate(xs)]
    return result_at(seq, seq / FPS, *(Detection(box=box, label="person", class_id=1, score=0.9) for box in boxes))


async def log_of_persons(frames: int) -> MemoryLog:
    """Return a log of results with two persons in the square, and with three from 5 s on."""
    return await log_of(
        [result(seq, [150.0] * 3 if seq >= 5 * FPS else [150.0, 150.0, 400.0]) for seq in range(frames)]
    )


async def events(log: MemoryLog, start: int, stop: int, *, write: bool = False) -> list[Event]:
    """Process the results between two frames as the owner of the partition, and return the events."""
    found = []
    async for _, out in outputs(AnalyseStage(SITE, 1), log, start, stop):
        assert out.topic == EVENTS
        found.append(decode_json(Event, out.value))
        if write:
            await log.produce(out)
    return found


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read back in small steps, because one large step would read the whole of a short log."""
    monkeypatch.setattr(readback, "_FIRST_CHUNK", 10)
    monkeypatch.setattr(readback, "_LAST_CHUNK", 10)


@pytest.mark.parametrize("cut", [20, 150, 212, 300, 900])
async def test_a_restart_at_any_record_reports_the_same_count_under_the_same_event_id(cut: int) -> None:
    log = await log_of_persons(1200)
    (whole,) = await events(log, 0, 1200)
    assert (whole.type, whole.data.details) == ("sightline.zone.count", {"count": 3, "lasted_s": 100.0})
    assert (whole.data.track, whole.data.overlay.box, len(whole.data.overlay.shape)) == ("", None, 4)
    parts = await events(log, 0, cut) + await events(log, cut, 1200)
    assert [event.id for event in parts] == [whole.id]


async def test_an_event_that_a_killed_process_wrote_after_its_last_commit_is_not_written_again() -> None:
    log = await log_of_persons(300)
    assert len(await events(log, 0, 300, write=True)) == 1
    assert await events(log, 200, 300) == []


def test_a_count_rule_counts_only_objects_with_the_configured_attribute() -> None:
    vans = rule(labels=("car",), attributes={"type": "van"}, at_least=2, for_s=1.0)
    others = [track(150, 190, "a", "car", type="sedan"), track(150, 195, "b", "car")]
    state, found = vans.watch(640, 360), []
    for n in range(8):
        seen = [track(150.0, 110.0 + 10 * k, f"t{k}", "car", type="van") for k in range(2 if n > 1 else 1)]
        found += state.observe(scene(n * STEP_S, *seen, *others, gap_s=STEP_S), ())
    ((happening, _),) = found
    assert happening.summary == "2 car with type van in yard for 1.0 s, at least 2"
    assert happening.details["count"] == 2


@pytest.mark.parametrize(
    ("attributes", "matches"),
    [
        ({"type": "van"}, True),
        ({"type": ["bus", "van"]}, True),
        ({"type": "bus"}, False),
        ({"colour": "red"}, False),
        ({"type": "van", "colour": "red"}, False),
        ({}, True),
    ],
)
def test_a_rule_applies_to_a_track_if_each_attribute_has_one_of_the_configured_labels(
    attributes: dict[str, Any], matches: bool
) -> None:
    wanted = rule(attributes=attributes)
    assert wanted.applies_to(track(150, 150, label="person", type="van")) == matches


def test_a_rule_attribute_without_a_label_is_refused() -> None:
    with pytest.raises(ValidationError):
        rule(attributes={"type": []})
