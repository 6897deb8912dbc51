"""Tests of a vehicle that parks, from the camera to the event, in a pipeline that examines moving regions only."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest

from edge_agent.camera.intake import FrameIntake
from edge_agent.camera.messages import KeptFrame, Message
from edge_agent.gate.background import ABSORB_S
from edge_agent.sources.simulated import SceneConfig, SimulatedScene
from edge_agent.sources.simulated import scene as scene_module
from edge_agent.sources.simulated.actors import Actor
from edge_agent.sources.source import CapturedFrame
from engines import backends
from engines.node.jobs import HighWaterMarks, accept, results
from engines.node.scheduler import MergedBatch
from engines.node.serving import ServedModel
from engines.repository.store import Repository
from ingest.contract import headers as h
from ingest.contract.codec import decode
from ingest.contract.identity import LIVE
from ingest.contract.records import Event, Frame, Result
from ingest.contract.topics import BATCHES, FRAMES
from ingest.kafka.log import LogRecord, Outgoing, TopicPartition
from ingest.kafka.memorylog import MemoryLog
from ingest.runtime.clock import ManualClock
from ingest.site import CameraConfig, GateConfig, PipelineConfig
from ingest.site.topic.view import Config
from stream.analyse.analyser import Analyser
from stream.analyse.rules.zone import ZoneRule
from stream.analyse.tracking.stationary import REST_S
from stream.analyse.tracking.tracker import ByteTracker
from stream.prepare.stage import PrepareStage
from tests.paths import MODELS

FPS = 10.0
PACE_PX_S = 200.0
ARRIVES_S, PARKED_S = 3.0, 5.0
"""Time in s at which the vehicle starts outside of the picture, and at which it has stopped with its centre at x =
300."""
PIPELINE = PipelineConfig(name="regions", model="regions", width=64, height=64, regions="motion", max_delay_s=0.0)
BAY = ZoneRule(
    name="bay",
    camera="road",
    pipeline="regions",
    polygon=((0.35, 0.6), (0.6, 0.6), (0.6, 0.85), (0.35, 0.85)),
    labels=("car",),
    dwell_s=20.0,
)
Place = Callable[[float], tuple[float, float]]


class Driver(Actor):
    """An actor that moves along its path in ``PLACES``."""

    def centre(self, at_s: float) -> tuple[float, float]:
        return PLACES[self.id](at_s)


PLACES: dict[int, Place] = {}


def driver(number: int, label: str, place: Place) -> Actor:
    PLACES[number] = place
    nowhere = (0.0, 0.0)
    return Driver(number, label, 0.0, 1e9, nowhere, nowhere, (1.0, 0.0), look=5)


def parks(leaves_s: float, y: float = 262.0) -> Place:
    def place(at_s: float) -> tuple[float, float]:
        driven_s = min(max(at_s - ARRIVES_S, 0.0), PARKED_S - ARRIVES_S) + max(at_s - leaves_s, 0.0)
        return -100.0 + PACE_PX_S * driven_s, y

    return place


def passes(*starts_s: float, y: float) -> Place:
    """Return a path through the picture from left to right, which begins anew at each of the times ``starts_s``."""

    def place(at_s: float) -> tuple[float, float]:
        gone_s = min((at_s - start_s for start_s in starts_s if at_s >= start_s), default=-1.0)
        return -100.0 + PACE_PX_S * gone_s, y

    return place


@dataclass
class Pipeline:
    """All stages from the capture of frames to the results, without a broker."""

    served: ServedModel
    gate: GateConfig

    def results(self, seconds: float, cast: Sequence[Actor], monkeypatch: pytest.MonkeyPatch) -> list[Result]:
        monkeypatch.setattr(scene_module, "present", lambda *_: list(cast))
        scene, out = SimulatedScene(SceneConfig("road", seed=3)), queue.Queue[Message | None]()
        intake = FrameIntake(CameraConfig(name="road", source="device:0", gate=self.gate), 1, ManualClock(), out)
        for index in range(round(seconds * FPS)):
            intake.frame(CapturedFrame(scene.render(index).image, 10**18 + round(index * 1e9 / FPS)))
        frames = [message for message in out.queue if isinstance(message, KeptFrame)]
        return asyncio.run(self._classified(frames))

    async def _classified(self, frames: Sequence[KeptFrame]) -> list[Result]:
        log, marks = MemoryLog(1), HighWaterMarks()
        config = Config({PIPELINE.key: PIPELINE})
        preparer = await PrepareStage("live", config, ManualClock()).open(TopicPartition(FRAMES, 0), 0, log)
        found = []
        for offset, kept in enumerate(frames):
            headers = h.frame_headers([decode(Frame, kept.record).id], LIVE)
            record = LogRecord(FRAMES, 0, offset, None, kept.record, headers)
            works = [*preparer.process(record), *preparer.flush()]
            found += [self._result(out, marks) for work in works for out in work.records]
        return found

    def _result(self, batch: Outgoing, marks: HighWaterMarks) -> Result:
        job = accept(LogRecord(BATCHES, 0, 0, None, batch.value, batch.headers), marks, frozenset({"regions"}))
        if not job.settled:
            merged = MergedBatch("regions")
            merged.jobs, merged.tasks = [job], list(job.tasks.values())
            self.served.classify(merged)
        (out,) = results(job, 0)
        return decode(Result, out.value)


@pytest.fixture(scope="module")
def served() -> ServedModel:
    served = ServedModel(PIPELINE, Repository(MODELS).open("regions"), backends.make("onnxruntime"))
    served.open()
    return served


def events_of(found: Sequence[Result], rule: ZoneRule = BAY) -> list[Event]:
    analyser = Analyser([rule], None, ByteTracker)
    return [event for result in found for event in analyser.step(result)]


def times_of(found: Sequence[Result], rule: ZoneRule = BAY) -> list[float]:
    return [(event.data.captured_ns - 10**18) / 1e9 for event in events_of(found, rule)]


@pytest.fixture
def pipeline(served: ServedModel, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Result]]:
    def run(seconds: float, *cast: Actor, gate: GateConfig | None = None) -> list[Result]:
        return Pipeline(served, gate or GateConfig()).results(seconds, cast, monkeypatch)

    return run


@pytest.mark.parametrize("label", ["car", "truck", "bus"])
def test_a_parked_vehicle_is_reported_once_after_the_dwell_time(
    pipeline: Callable[..., list[Result]], label: str
) -> None:
    found = pipeline(40.0, driver(1, label, parks(36.0)))
    rule = BAY.model_copy(update={"labels": (label,)})
    (event,) = events_of(found, rule)
    due_s = PARKED_S + BAY.dwell_s
    assert due_s - 1.0 <= times_of(found, rule)[0] <= due_s + GateConfig().keep_alive_s
    assert [one.id for one in events_of(found, rule)] == [event.id]
    assert len(found) < 120  # of 40 s, the gate is open for four seconds and its hold time


@pytest.mark.parametrize("y", [150.0, 310.0])
def test_a_vehicle_parked_beside_traffic_is_reported_once_and_on_time(
    pipeline: Callable[..., list[Result]], y: float
) -> None:
    """Frames are sent all the time, but none of their regions shows the parked vehicle."""
    traffic = driver(2, "truck", passes(*range(14, 40, 4), y=y))
    (at_s,) = times_of(pipeline(36.0, driver(1, "car", parks(32.0)), traffic))
    assert abs(at_s - PARKED_S - BAY.dwell_s) < 1.0


def test_traffic_in_front_of_a_parked_vehicle_does_not_end_its_track(pipeline: Callable[..., list[Result]]) -> None:
    bus = driver(2, "bus", passes(12.0, 20.0, y=272.0))
    (at_s,) = times_of(pipeline(38.0, driver(1, "car", parks(36.0)), bus))
    assert PARKED_S + BAY.dwell_s - 1.0 <= at_s <= PARKED_S + BAY.dwell_s + GateConfig().keep_alive_s


@pytest.mark.parametrize(("leaves_s", "traffic"), [(12.0, False), (20.0, True), (23.0, False)])
def test_a_vehicle_that_leaves_early_is_not_reported(
    pipeline: Callable[..., list[Result]], leaves_s: float, traffic: bool
) -> None:
    others = [driver(2, "car", passes(*range(6, 40, 4), y=150.0))] if traffic else []
    assert times_of(pipeline(40.0, driver(1, "car", parks(leaves_s)), *others)) == []


def lost(found: Sequence[Result], from_s: float, until_s: float) -> list[Result]:
    """Remove results, as if their frames had been sent on the late lane."""
    return [one for one in found if not from_s <= (one.captured_ns - 10**18) / 1e9 < until_s]


def test_time_without_frames_in_an_outage_or_overload_does_not_count_as_dwell_time(
    pipeline: Callable[..., list[Result]],
) -> None:
    rule = BAY.model_copy(update={"dwell_s": 30.0})
    found = pipeline(59.5, driver(1, "car", parks(90.0)))
    assert len(events_of(found, rule)) == 1
    cut = lost(found, 15.0, 25.0)
    assert times_of(cut, rule) == []
    gap = next(n for n, one in enumerate(found) if one.captured_ns > 10**18 + 20 * 10**9)
    busy = found[gap].model_copy(update={"withheld": {**found[gap].withheld, "overload": 1}})
    assert times_of([*found[:gap], busy, *found[gap + 1 :]], rule) == []
    shorter = BAY.model_copy(update={"dwell_s": 10.0})
    (at_s,) = times_of(cut, shorter)  # without the gap, the dwell time would have ended before 25 s
    assert at_s > 25.0 + shorter.dwell_s


def test_a_track_becomes_stationary_before_the_background_absorbs_it() -> None:
    """The compared constants are in two packages that do not import each other."""
    assert 1.5 * REST_S <= ABSORB_S
