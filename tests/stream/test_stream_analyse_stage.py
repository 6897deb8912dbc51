"""Tracks, rules and restarts: what a restart tells again has the same ids."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.capture.simulated import COUNTING_LINES, Scene, SceneConfig
from edge_agent.capture.simulated.actors import crossings_between
from ingest import headers as h
from ingest.codec import decode_json, encode
from ingest.configstore import Config
from ingest.identity import LATE, LIVE
from ingest.log import Outgoing, Slot
from ingest.memorylog import MemoryLog
from ingest.records import Box, Detection, Event, FrameRef, Result
from ingest.site import CameraConfig, LineRule, PipelineConfig
from ingest.topics import DEADLETTER, EVENTS, RESULTS
from stream.analyse.stage import AnalyseStage

CAMERA = CameraConfig(name="road", source="simulated:road", site="here")
PIPELINE = PipelineConfig(name="regions", model="regions", width=64, height=64)
LINE = LineRule(
    name="line", camera="road", pipeline="regions", start=COUNTING_LINES["road"][0], end=COUNTING_LINES["road"][1]
)
CONFIG = Config({entry.key: entry for entry in (CAMERA, PIPELINE, LINE)})
SLOT = Slot(RESULTS, 0)


def results(fps: float, seconds: float, *, seed: int = 1, miss: float = 0.0, shake_px: float = 0.0) -> list[Result]:
    """What a detector with these faults would say of the simulated road."""
    scene = Scene(SceneConfig("road", seed=seed, fps=fps, width=640, height=360, noise_sigma=0.0))
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


async def log_of(found: list[Result]) -> MemoryLog:
    log = MemoryLog(partitions=1)
    for one in found:
        await log.produce(Outgoing(RESULTS, 0, encode(one), headers=h.frame_headers([one.id], one.lane)))
    return log


async def events_from(log: MemoryLog, start: int, stop: int) -> dict[str, Event]:
    """Open the stage at ``start`` and process up to ``stop``, as an owner of the partition would."""
    interpreter = await AnalyseStage(CONFIG, 1).open(SLOT, start, log)
    found = {}
    async for record in log.read(RESULTS, 0, start, stop):
        for work in interpreter.process(record):
            assert work.done == (record.offset,)
            for out in work.records:
                assert out.topic == EVENTS
                event = decode_json(Event, out.value)
                found[event.id] = event
    return found


@pytest.mark.parametrize("fps", [5.0, 10.0])
@pytest.mark.parametrize(("miss", "shake_px"), [(0.0, 0.0), (0.1, 2.0)])
async def test_crossings_of_the_simulated_road_are_found(fps: float, miss: float, shake_px: float) -> None:
    log = await log_of(results(fps, 60, miss=miss, shake_px=shake_px))
    events = await events_from(log, 0, int(fps * 60))
    truth = crossings_between(SceneConfig("road", seed=1), 0.0, 60.0)
    forward = sum(c.direction == "forward" for c in truth)
    assert len(truth) > 20
    assert abs(sum(e.data.direction == "forward" for e in events.values()) - forward) <= max(1, 0.1 * forward)
    assert abs(len(events) - len(truth)) <= 0.1 * len(truth)


async def test_an_event_says_what_where_and_when() -> None:
    log = await log_of(results(10, 30))
    events = await events_from(log, 0, 300)
    event = next(iter(events.values()))
    assert event.type == "sightline.line.crossed"
    assert event.source == "/here/road"
    assert event.data.frame is not None
    assert event.data.frame.offset == event.data.seq
    assert len(event.data.overlay.shape) == 2
    assert event.data.overlay.box is not None
    assert event.data.summary == f"{event.data.label} crossed line going {event.data.direction}"
    assert not event.data.late


KNOWN = results(10, 25)


@given(cut=st.integers(1, 249), back=st.integers(0, 40))
@settings(deadline=None, max_examples=12)
def test_a_restart_anywhere_tells_the_same_events(cut: int, back: int) -> None:
    """The first owner dies after ``cut``, having committed ``back`` before; the second reads its tail and goes on."""
    import asyncio

    async def run() -> None:
        log = await log_of(KNOWN)
        whole = await events_from(log, 0, len(KNOWN))
        first = await events_from(log, 0, cut)
        second = await events_from(log, max(0, cut - back), len(KNOWN))
        assert {**first, **second} == whole

    asyncio.run(run())


async def test_lanes_are_apart_and_late_says_so() -> None:
    live = results(10, 25)
    late = [r.model_copy(update={"lane": LATE}) for r in live]
    mixed = [r for pair in zip(live, late, strict=True) for r in pair]
    events = await events_from(await log_of(mixed), 0, len(mixed))
    assert sum(e.data.late for e in events.values()) * 2 == len(events) > 0


async def test_repeats_make_no_events_and_a_new_epoch_begins_afresh() -> None:
    once = results(10, 25)
    again = [r.model_copy(update={"epoch": 6}) for r in once]
    plain = await events_from(await log_of(once), 0, len(once))
    repeated = await events_from(await log_of([*once, *once[:200]]), 0, len(once) + 200)
    assert repeated == plain
    both = await events_from(await log_of([*once, *again]), 0, 2 * len(once))
    assert len(both) == 2 * len(plain)


async def test_a_result_that_cannot_be_read_is_parked() -> None:
    log = MemoryLog(partitions=1)
    await log.produce(Outgoing(RESULTS, 0, b"no result"))
    interpreter = await AnalyseStage(CONFIG, 1).open(SLOT, 0, log)
    async for record in log.read(RESULTS, 0, 0, 1):
        (work,) = interpreter.process(record)
        assert [(r.topic, r.value) for r in work.records] == [(DEADLETTER, b"no result")]
        assert work.done == (0,)
