"""Tests of re-identification after restarts and changes of the configuration, and with random people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.contract.codec import decode_json
from ingest.contract.records import Detection, Event, Result
from ingest.contract.topics import EVENTS, RESULTS
from ingest.kafka.log import Outgoing
from ingest.kafka.memorylog import MemoryLog
from ingest.site import AppearanceConfig, CameraConfig, PipelineConfig, SecondModelConfig
from ingest.site.topic.view import Config
from stream.analyse.analyser import Analyser
from stream.analyse.analysers import Analysers, RuleSet
from stream.analyse.rule import TAIL_S, CameraRule
from stream.analyse.rules.line import LineRule
from stream.analyse.stage import AnalyseStage
from stream.analyse.tracking.appearance import AppearanceMemory
from stream.analyse.tracking.tracker import ByteTracker
from stream.readback import tail
from tests.stream.analyse.owners import PARTITION, log_of, outputs
from tests.stream.analyse.tracking.lostpeople import (
    BLUE,
    COVERED,
    FPS,
    GREEN,
    HALL,
    LINE,
    LOOK,
    MEASURE,
    RED,
    SETTINGS,
    ZONE,
    Watched,
    measured,
    person,
    result,
)


def site(*rules: CameraRule) -> Config:
    second = SecondModelConfig(name=LOOK, model="look@1")
    pipeline = PipelineConfig(name="p", model="m", width=64, height=64, then=(second,), appearance=SETTINGS)
    entries = (CameraConfig(name="c", source="simulated:road"), pipeline, *rules)
    return Config({entry.key: entry for entry in entries})


RULES = RuleSet([LINE], pipelines=site().of(PipelineConfig))
Written = list[tuple[int, bytes]]
"""Events, each with the offset of the result that completed it."""


async def analysed(log: MemoryLog, start: int) -> Written:
    """Return the events of a worker that begins at an offset."""
    stop = (await log.ends(RESULTS))[0]
    return [(offset, out.value) async for offset, out in outputs(AnalyseStage(site(LINE), 1), log, start, stop)]


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
    log = await log_of(hidden_between_crossings(0))
    whole = await analysed(log, 0)
    assert len(whole) == 2
    assert len({decode_json(Event, value).data.track for _, value in whole}) == 1
    for cut in (30, 70, 130, 136, 150):
        assert await analysed(log, cut) == [one for one in whole if one[0] >= cut]


async def test_a_restart_gives_the_same_names_if_the_beginning_of_the_log_is_not_read_back() -> None:
    early, nothing = hidden_between_crossings(0, BLUE), [result(175 + n) for n in range(120 * FPS)]
    late = hidden_between_crossings(175 + 120 * FPS)
    log = await log_of([*early, *nothing, *late])
    whole = await analysed(log, 0)
    assert len(whole) == 4
    for cut in (len(early) + len(nothing) + n for n in (130, 138, 150)):
        past = await tail(log, PARTITION, cut, RULES.history_point, RULES.longest_s)
        assert 0 < past[0].offset < len(early) + len(nothing)
        assert await analysed(log, cut) == [one for one in whole if one[0] >= cut]


async def test_a_restart_during_or_after_a_wait_reports_a_crossing_of_a_waiting_track_once() -> None:
    log = await log_of(hidden_between_crossings(0, on_return=COVERED))
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

    def tracks_of_both_crossings() -> set[str]:
        seen.clear()
        for x in range(240, 400, 20):
            see(person(x, RED), frames=1)
        see(frames=4 * FPS)
        for x in range(400, 240, -20):
            see(person(x, RED), frames=1)
        see(frames=40 * FPS)
        return set(seen)

    assert len(tracks_of_both_crossings()) == 2
    present[0] = RuleSet(*of, pipelines=config.of(PipelineConfig))
    assert len(tracks_of_both_crossings()) == 1
    present[0] = RuleSet(*of)
    assert len(tracks_of_both_crossings()) == 2


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
        sums = measured(watched, HALL)
        sums.pop("person.lost", None)  # with re-identification, rules keep lost tracks for longer
        return {one.model_dump_json() for one in watched.events}, sums

    with patch.object(AppearanceMemory, "_match", return_value=None):
        assert run(SETTINGS) == run(None)
