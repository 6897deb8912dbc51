"""A vehicle that parks, from the camera to the event, by a pipeline that looks at moving regions only."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from edge_agent.capture.messages import Kept, Message
from edge_agent.capture.simulated import Scene, SceneConfig
from edge_agent.capture.simulated import scene as scene_module
from edge_agent.capture.simulated.actors import Actor
from edge_agent.capture.source import Captured
from edge_agent.intake import Intake
from engines import backends
from engines.jobs import accept, results
from engines.marks import Marks
from engines.repository.store import Repository
from engines.scheduler import Merged
from engines.serving import Served
from ingest import headers as h
from ingest.clock import ManualClock
from ingest.codec import decode
from ingest.configstore import Config
from ingest.identity import LIVE
from ingest.log import LogRecord, Outgoing, Slot
from ingest.memorylog import MemoryLog
from ingest.records import Event, Frame, Result
from ingest.site import CameraConfig, GateConfig, PipelineConfig, ZoneRule
from ingest.topics import BATCHES, FRAMES
from stream.analyse.analyser import Analyser
from stream.analyse.tracker import ByteTracker
from stream.prepare.stage import PrepareStage

MODELS = Path(__file__).resolve().parents[2] / "engines" / "models"
FPS = 10.0
PACE_PX_S = 200.0
ARRIVES_S, PARKED_S = 3.0, 5.0
"""It sets off outside of the picture, and stands two seconds later with its middle at x = 300."""
PIPELINE = PipelineConfig(name="regions", model="regions", width=64, height=64, regions="motion", max_delay_s=0.0)
BAY = ZoneRule(
    name="bay",
    camera="road",
    pipeline="regions",
    polygon=((0.35, 0.6), (0.6, 0.6), (0.6, 0.85), (0.35, 0.85)),
    labels=("car",),
    dwell_s=30.0,
)
Place = Callable[[float], tuple[float, float]]


class Driver(Actor):
    """An actor that goes where its ``looks``' place says."""

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
    """Go through the picture from left to right, again and again."""

    def place(at_s: float) -> tuple[float, float]:
        gone_s = min((at_s - start_s for start_s in starts_s if at_s >= start_s), default=-1.0)
        return -100.0 + PACE_PX_S * gone_s, y

    return place


@dataclass
class Pipeline:
    """All stages from the capture to the rules, without a broker."""

    served: Served
    gate: GateConfig

    def results(self, seconds: float, cast: Sequence[Actor], monkeypatch: pytest.MonkeyPatch) -> list[Result]:
        monkeypatch.setattr(scene_module, "present", lambda *_: list(cast))
        scene, out = Scene(SceneConfig("road", seed=3)), queue.Queue[Message | None]()
        intake = Intake(CameraConfig(name="road", source="device:0", gate=self.gate), 1, ManualClock(), out)
        for index in range(round(seconds * FPS)):
            intake.frame(Captured(scene.render(index).image, 10**18 + round(index * 1e9 / FPS)))
        frames = [message for message in out.queue if isinstance(message, Kept)]
        return asyncio.run(self._classified(frames))

    async def _classified(self, frames: Sequence[Kept]) -> list[Result]:
        log, marks = MemoryLog(1), Marks()
        config = Config({PIPELINE.key: PIPELINE})
        preparer = await PrepareStage("live", config, ManualClock()).open(Slot(FRAMES, 0), 0, log)
        found = []
        for offset, kept in enumerate(frames):
            headers = h.frame_headers([decode(Frame, kept.record).id], LIVE)
            record = LogRecord(FRAMES, 0, offset, None, kept.record, headers)
            works = [*preparer.process(record), *preparer.flush()]
            found += [self._result(out, marks) for work in works for out in work.records]
        return found

    def _result(self, batch: Outgoing, marks: Marks) -> Result:
        job = accept(LogRecord(BATCHES, 0, 0, None, batch.value, batch.headers), marks, frozenset({"regions"}))
        if not job.settled:
            merged = Merged("regions")
            merged.jobs, merged.parts = [job], list(job.parts.values())
            self.served.classify(merged)
        (out,) = results(job, 0)
        return decode(Result, out.value)


@pytest.fixture(scope="module")
def served() -> Served:
    served = Served(PIPELINE, Repository(MODELS).open("regions"), lambda: backends.make("onnxruntime"), 1)
    served.open()
    return served


def told(found: Sequence[Result], rule: ZoneRule = BAY) -> list[Event]:
    analyser = Analyser([rule], "", ByteTracker)
    return [event for result in found for event in analyser.step(result)]


def told_s(found: Sequence[Result], rule: ZoneRule = BAY) -> list[float]:
    return [(event.data.captured_ns - 10**18) / 1e9 for event in told(found, rule)]
