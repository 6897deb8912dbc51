"""Tests of the stage ``analyse``: crossings, restarts, lanes, and results that are parked."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from edge_agent.sources.simulated import COUNTING_LINES, SceneConfig, SimulatedScene
from edge_agent.sources.simulated.actors import crossings_between
from ingest.contract.codec import decode_json, encode, encode_json
from ingest.contract.identity import LATE, LIVE, replay_lane
from ingest.contract.records import Box, Detection, Event, FrameRef, Result
from ingest.contract.topics import DEADLETTER, EVENTS, RESULTS
from ingest.kafka.log import Outgoing
from ingest.kafka.memorylog import MemoryLog
from ingest.site import CameraConfig, PipelineConfig
from ingest.site.topic.view import Config
from stream.analyse.analyser import Analyser
from stream.analyse.analysers import MAX_REPLAYED, Analysers, RuleSet
from stream.analyse.rule import CameraRule
from stream.analyse.rules.line import LineRule
from stream.analyse.stage import AnalyseStage
from stream.analyse.tracking.tracker import ByteTracker
from tests.stream.analyse.owners import log_of, outputs

CAMERA = CameraConfig(name="road", source="simulated:road", site="here")
PIPELINE = PipelineConfig(name="regions", model="regions", width=64, height=64)
LINE = LineRule(
    name="line", camera="road", pipeline="regions", start=COUNTING_LINES["road"][0], end=COUNTING_LINES["road"][1]
)
CONFIG = Config({entry.key: entry for entry in (CAMERA, PIPELINE, LINE)})


def results(fps: float, seconds: float, *, seed: int = 1, miss: float = 0.0, shake_px: float = 0.0) -> list[Result]:
    """Return the results of a detector with the given faults on the simulated road."""
    scene = SimulatedScene(SceneConfig("road", seed=seed, fps=fps, width=640, height=360, noise_sigma=0.0))
    rng = np.random.default_rng(seed)
    found = []
    for index in range(int(fps * seconds)):
        detections = [
            Detection(box=Box(*(np.array(o.box) + rng.normal(0, shake_px, 4))), label=o.label, class_id=1, score=0.9)
            for o in scene.render(index).objects
            if rng.random() >= miss
        ]
        found.append(result(index, round(index / fps * 1e9), tuple(detections)))
    return found


def result(seq: int, at_ns: int, detections: tuple[Detection, ...] = (), lane: str = LIVE, epoch: int = 5) -> Result:
    return Result(
        camera="road",
        epoch=epoch,
        seq=seq,
        lane=lane,
        pipeline="regions",
        pipelines=("regions",),
        captured_ns=10**18 + at_ns,
        finished_ns=10**18 + at_ns,
        width=640,
        height=360,
        source=FrameRef("frames", 0, seq),
        outcome="classified",
        detections=detections,
    )


async def events_from(log: MemoryLog, start: int, stop: int) -> dict[str, Event]:
    """Open the stage at ``start`` and process the results up to ``stop``, as an owner of the partition does."""
    found = {}
    async for _, out in outputs(AnalyseStage(CONFIG, 1), log, start, stop):
        assert out.topic in (EVENTS, DEADLETTER)
        if out.topic == EVENTS:
            event = decode_json(Event, out.value)
            found[event.id] = event
    return found


@pytest.mark.parametrize("fps", [5.0, 10.0])
@pytest.mark.parametrize(("miss", "shake_px"), [(0.0, 0.0), (0.1, 2.0)])
async def test_line_crossings_of_the_simulated_road_are_reported(fps: float, miss: float, shake_px: float) -> None:
    log = await log_of(results(fps, 60, miss=miss, shake_px=shake_px))
    events = await events_from(log, 0, int(fps * 60))
    truth = crossings_between(SceneConfig("road", seed=1), 0.0, 60.0)
    forward = sum(c.direction == "forward" for c in truth)
    assert len(truth) > 20
    assert abs(sum(e.data.details["direction"] == "forward" for e in events.values()) - forward) <= max(
        1, 0.1 * forward
    )
    assert abs(len(events) - len(truth)) <= 0.1 * len(truth)


async def test_an_event_has_type_source_frame_overlay_and_summary() -> None:
    log = await log_of(results(10, 30))
    events = await events_from(log, 0, 300)
    event = next(iter(events.values()))
    assert event.type == "sightline.line.crossed"
    assert event.source == "/here/road"
    assert event.data.frame is not None
    assert event.data.frame.offset == event.data.seq
    assert len(event.data.overlay.shape) == 2
    assert event.data.overlay.box is not None
    assert event.data.summary == f"{event.data.label} crossed line going {event.data.details['direction']}"
    assert not event.data.late


@pytest.fixture(scope="module")
def known() -> tuple[list[Result], dict[str, Event]]:
    """Return results that cover more time than a restart reads back, and all their events."""
    found = results(5, 200)
    analyser = Analyser([LINE], CAMERA, ByteTracker)
    return found, {event.id: event for one in found for event in analyser.step(one)}


@given(cut=st.integers(650, 999), back=st.integers(0, 40), written=st.booleans())
@settings(deadline=None, max_examples=12)
def test_a_restart_of_analyse_at_any_record_makes_the_same_events(
    known: tuple[list[Result], dict[str, Event]], cut: int, back: int, written: bool
) -> None:
    """The first owner dies after the record ``cut``, with its last commit ``back`` records before.

    A second owner continues.
    """

    async def run() -> None:
        found, whole = known
        log = await log_of(found)
        before = {name: event for name, event in whole.items() if event.data.seq < cut}
        if written:
            for event in before.values():
                await log.produce(Outgoing(EVENTS, 0, encode_json(event)))
        second = await events_from(log, cut - back, len(found))
        assert {**before, **second} == whole
        assert not (written and before.keys() & second.keys())

    asyncio.run(run())


async def test_live_and_late_results_have_separate_tracks_and_late_events_are_marked() -> None:
    live = results(10, 25)
    late = [r.model_copy(update={"lane": LATE}) for r in live]
    mixed = [r for pair in zip(live, late, strict=True) for r in pair]
    events = await events_from(await log_of(mixed), 0, len(mixed))
    assert sum(e.data.late for e in events.values()) * 2 == len(events) > 0


async def test_repeated_results_make_no_events_and_a_new_capture_run_has_new_tracks() -> None:
    once = results(10, 25)
    again = [r.model_copy(update={"epoch": 6}) for r in once]
    plain = await events_from(await log_of(once), 0, len(once))
    repeated = await events_from(await log_of([*once, *once[:200]]), 0, len(once) + 200)
    assert repeated == plain
    both = await events_from(await log_of([*once, *again]), 0, 2 * len(once))
    assert len(both) == 2 * len(plain)


async def parked_by(log: MemoryLog, start: int = 0) -> list[bytes]:
    stop = (await log.ends(RESULTS))[0]
    return [
        out.value async for _, out in outputs(AnalyseStage(CONFIG, 1), log, start, stop) if out.topic == DEADLETTER
    ]


async def test_an_unreadable_result_becomes_a_dead_letter() -> None:
    log = MemoryLog(partitions=1)
    await log.produce(Outgoing(RESULTS, 0, b"no result"))
    await log.produce(Outgoing(RESULTS, 0, encode(result(0, 0))))
    assert await parked_by(log) == [b"no result"]
    assert await parked_by(log, 1) == []


def with_box(*edges: float) -> Detection:
    return Detection.model_construct(box=Box(*edges), label="car", class_id=1, score=0.9)


async def test_a_result_that_cannot_be_tracked_becomes_a_dead_letter_and_the_next_are_tracked() -> None:
    """A box that overflows single precision follows the detections of a car. A restart then reads that box again."""
    found = results(10, 25)
    found[100] = result(100, 10 * 10**9, (with_box(-1e300, 0.0, 1e300, 10.0),))
    log = await log_of(found)
    assert await parked_by(log) == [encode(found[100])]
    assert await parked_by(log, 200) == []
    assert len(await events_from(log, 0, 250)) > 5
    assert await events_from(log, 150, 250) == {
        name: event for name, event in (await events_from(log, 0, 250)).items() if event.data.seq >= 150
    }


@pytest.mark.parametrize("edge", [float("inf"), float("nan")])
async def test_a_result_with_a_box_without_finite_numbers_is_refused(edge: float) -> None:
    log = await log_of([result(0, 0, (with_box(0.0, 0.0, edge, 10.0),))])
    assert len(await parked_by(log)) == 1
    with pytest.raises(ValidationError, match="finite"):
        Detection(box=Box(0.0, 0.0, edge, 10.0), label="car", class_id=1, score=0.9)


async def test_a_memory_error_ends_the_analyse_process_and_makes_no_dead_letter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = await log_of([result(0, 0), result(1, 1)])

    def exhausted(_: Analyser, one: Result) -> list[Event]:
        if one.seq == 0:
            raise MemoryError
        return []

    monkeypatch.setattr(Analyser, "step", exhausted)
    for start in (0, 1):
        with pytest.raises(MemoryError):
            await parked_by(log, start)


def analysers_for(*found: Result, config: Config = CONFIG) -> int:
    """Return the number of analysers after these results."""
    rules = RuleSet(config.of(CameraRule))
    analysers = Analysers(lambda: rules, ByteTracker)
    for one in found:
        analysers.step(one)
    return len(analysers)


def test_a_result_of_a_camera_without_rules_gets_no_analyser() -> None:
    one = result(0, 0)
    assert analysers_for(one, one.model_copy(update={"lane": LATE})) == 2
    assert analysers_for(one.model_copy(update={"camera": "other"}), one.model_copy(update={"pipeline": "none"})) == 0
    assert analysers_for(one, config=Config({CAMERA.key: CAMERA})) == 0


def test_if_there_are_too_many_analysers_only_those_of_replays_are_dropped() -> None:
    replays = [result(0, 0, lane=replay_lane(f"run-{n}")) for n in range(2 * MAX_REPLAYED)]
    assert analysers_for(result(0, 0), *replays, result(0, 0, lane=LATE)) == 2 + MAX_REPLAYED
    assert analysers_for(*[result(n, n, lane=replay_lane("one")) for n in range(2 * MAX_REPLAYED)]) == 1


def test_added_and_removed_rules_take_effect_with_the_next_result() -> None:
    rules = RuleSet([])
    analysers = Analysers(lambda: rules, ByteTracker)
    made = []
    for changed in (RuleSet([LINE]), RuleSet([]), RuleSet([LINE])):
        analysers.step(result(len(made), len(made) * 10**8))
        made.append(len(analysers))
        rules = changed
    analysers.step(result(len(made), len(made) * 10**8))
    assert [*made, len(analysers)] == [0, 1, 0, 1]
