"""Sends the frames of one camera through Sightline's own chain, on a log in memory: source, gate, prepare, models,
analyse."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from prometheus_client import CollectorRegistry

from edge_agent.camera.intake import FrameIntake
from edge_agent.camera.messages import KeptFrame, Message
from edge_agent.sources.file import FileSource
from edge_agent.sources.pace import FramePacer
from edge_agent.sources.source import FrameSource
from engines import backends
from engines.metrics import NodeMetrics
from engines.node.jobs import HighWaterMarks, accept, results
from engines.node.pipelines import LiveModels
from engines.node.scheduler import MergedBatch
from engines.node.serving import RepositorySource
from engines.repository.store import Repository
from ingest.contract import headers as h
from ingest.contract.codec import decode, decode_json, encode
from ingest.contract.records import Event, Frame, Measure, Result
from ingest.contract.records.base import Record
from ingest.contract.topics import BATCHES, EVENTS, FRAMES, MEASURES, RESULTS
from ingest.kafka.log import Outgoing
from ingest.kafka.memorylog import MemoryLog
from ingest.runtime.clock import ManualClock
from ingest.site import CameraConfig, PipelineConfig
from ingest.site.topic.view import Config
from stream.analyse.stage import AnalyseStage
from stream.analyse.tracking.tracker import ByteTracker, Tracker
from stream.prepare.stage import PrepareStage
from stream.runner.memory import MemoryRunner

R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class Analysed:
    """The events and measures that the stage ``analyse`` wrote, and the results that it read."""

    results: list[Result]
    events: list[Event]
    measures: list[Measure]


def clip_source(camera: CameraConfig, path: Path, clock: ManualClock) -> FrameSource:
    """Return a source that plays a clip once, on a clock that moves from frame to frame."""
    return FileSource(path, camera.fps, clock, pace=FramePacer(camera.fps, clock, wait=clock.advance))


def captured(camera: CameraConfig, source: FrameSource, clock: ManualClock) -> list[Frame]:
    """Return those frames of a source that the camera's gate sends, as the agent encodes them."""
    sent: queue.Queue[Message | None] = queue.Queue()
    FrameIntake(camera, 1, clock, sent).run(source, threading.Event())
    frames = []
    while not sent.empty():
        message = sent.get_nowait()
        if isinstance(message, KeptFrame):
            frames.append(decode(Frame, message.record))
    return frames


async def classified(frames: Sequence[Frame], config: Config, models: Path) -> list[Result]:
    """Run frames through the stage ``prepare`` and the models of the pipelines in ``config``, and return the
    results."""
    clock = ManualClock()
    log = MemoryLog(1)
    for frame in frames:
        headers = h.frame_headers([frame.id], "live")
        await log.produce(Outgoing(FRAMES, 0, encode(frame), key=frame.camera.encode(), headers=headers))
    prepare = MemoryRunner(PrepareStage("live", config, clock), log, clock)
    await prepare.run()
    await prepare.advance(1.0)
    source = RepositorySource(Repository(models), lambda _: backends.make("onnxruntime"))
    live = LiveModels(source, NodeMetrics(CollectorRegistry()), lambda: 0.0)
    live.want(list(config.of(PipelineConfig)))
    await live.update()
    marks, written = HighWaterMarks(), list[Result]()
    async for record in log.read(BATCHES, 0, 0, (await log.ends(BATCHES))[0]):
        job = accept(record, marks, live.names)
        if job.tasks:
            async with live.use(job.pipeline) as models_of_pipeline:
                batch = MergedBatch(job.pipeline, list(job.tasks.values()), [job])
                await asyncio.to_thread(models_of_pipeline.classify, batch)
        for outgoing in results(job, clock.now_ns()):
            assert outgoing.topic == RESULTS, f"a frame became a dead letter: {outgoing.headers}"
            written.append(decode(Result, outgoing.value))
    await live.close()
    return written


async def analysed(
    found: Sequence[Result], config: Config, make_tracker: Callable[[float], Tracker] = ByteTracker
) -> Analysed:
    """Run results through the stage ``analyse``, and return its events and measures."""
    log = MemoryLog(1)
    for one in found:
        await log.produce(Outgoing(RESULTS, 0, encode(one), headers=h.frame_headers([one.id], one.lane)))
    await MemoryRunner(AnalyseStage(config, 1, make_tracker), log, ManualClock()).run()
    return Analysed(list(found), await _all(log, EVENTS, Event), await _all(log, MEASURES, Measure))


async def _all(log: MemoryLog, topic: str, cls: type[R]) -> list[R]:
    ends = await log.ends(topic)
    return [decode_json(cls, one.value) async for one in log.read(topic, 0, 0, ends.get(0, 0))]
