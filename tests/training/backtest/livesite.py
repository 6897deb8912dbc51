"""A site with simulated cameras whose frames ran through the live stages, on the log in memory, with real models."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2

from edge_agent.gate.motion import MotionDetector
from edge_agent.sources.simulated import COUNTING_LINES, RESTRICTED_ZONE, SceneConfig, SimulatedScene
from engines import backends
from engines.node.scheduler import MergedBatch
from engines.node.serving import RepositorySource, ServedModel
from engines.node.takeover import take_over
from engines.repository.store import Repository
from ingest.contract import headers as h
from ingest.contract.codec import decode, decode_json, encode
from ingest.contract.identity import LATE, LIVE
from ingest.contract.records import Event, Frame, Result
from ingest.contract.topics import BATCHES, BATCHES_LATE, EVENTS, FRAMES, FRAMES_LATE, RESULTS, partition_for
from ingest.kafka.log import Outgoing, TopicPartition
from ingest.kafka.memorylog import MemoryLog
from ingest.runtime.clock import ManualClock
from ingest.site import CameraConfig, ConfigEntry, PipelineConfig
from ingest.site.topic.view import Config
from stream.analyse.rules.line import LineRule
from stream.analyse.rules.zone import ZoneRule
from stream.analyse.stage import AnalyseStage
from stream.prepare.stage import PrepareStage
from stream.runner.memory import MemoryRunner
from training.backtest.core import CandidateModels
from training.backtest.plan import BacktestPlan

PARTITIONS = 2
BEGIN_NS = 1_796_004_005 * 10**9
"""2026-11-30T02:00:05Z, in the period of docs/how-to/backtest.md."""
BEGIN_MS = BEGIN_NS // 10**6
FPS = 5.0
FRAMES_EACH = 45
WIDTH, HEIGHT = 320, 180
PIPELINE = PipelineConfig(
    name="p", model="regions", width=64, height=64, regions="motion", max_items=3, max_regions=4
)
KINDS = {"north": "road", "south": "road", "yard": "yard"}
"""The scene of each camera."""


def site() -> Config:
    """Return the configuration: a line for each camera, and a zone for the yard."""
    found: list[ConfigEntry] = [PIPELINE]
    for name, kind in KINDS.items():
        start, end = COUNTING_LINES[kind]
        found.append(CameraConfig(name=name, source=f"simulated:{kind}"))
        found.append(LineRule(name=f"{name}-line", camera=name, pipeline="p", start=start, end=end))
    found.append(ZoneRule(name="restricted", camera="yard", pipeline="p", polygon=RESTRICTED_ZONE, dwell_s=0.4))
    return Config({one.key: one for one in found})


def source(models: Path) -> RepositorySource:
    """Return the source of the models in a repository, on one core."""
    return RepositorySource(Repository(models), lambda _: backends.make("onnxruntime", 1))


@dataclass
class LiveSite:
    """The log after the live run, and its events."""

    log: MemoryLog
    config: Config
    events: list[Event]

    def plan(
        self, models: Path, model: str = "regions@1", first_s: float = 0.0, end_s: float = 100.0, **names: list[str]
    ) -> BacktestPlan:
        """Return the plan of a backtest over the frames that were written in a period, in s from the first frame."""
        period = round(BEGIN_MS + 1000 * first_s), round(BEGIN_MS + 1000 * end_s)
        return BacktestPlan.of(self.config, Repository(models).open(model).manifest, period, **names)  # type: ignore[arg-type]


def candidate(plan: BacktestPlan, models: Path) -> CandidateModels:
    """Return the open models of a plan."""
    return CandidateModels(plan.pipelines, source(models))


def frames() -> list[Outgoing]:
    """Return the records of all cameras in the order of their times.

    The camera ``north`` restarts in the middle, and the last frames of ``south`` come in the late lane.
    """
    scenes = {
        name: SimulatedScene(SceneConfig(kind, n, WIDTH, HEIGHT, fps=FPS))
        for n, (name, kind) in enumerate(KINDS.items())
    }
    detectors = {name: MotionDetector(0.0005) for name in KINDS}
    found = []
    for number in range(FRAMES_EACH):
        for name, scene in scenes.items():
            image = scene.render(number).image
            is_restarted = name == "north" and number >= FRAMES_EACH // 2
            frame = Frame(
                camera=name,
                epoch=2 if is_restarted else 1,
                seq=number - FRAMES_EACH // 2 if is_restarted else number,
                captured_ns=BEGIN_NS + round(number / FPS * 1e9),
                width=image.shape[1],
                height=image.shape[0],
                image=cv2.imencode(".jpg", image)[1].tobytes(),
                motion=tuple(detectors[name].boxes(image)),
            )
            late = name == "south" and number >= FRAMES_EACH * 3 // 4
            topic, lane = (FRAMES_LATE, LATE) if late else (FRAMES, LIVE)
            headers = h.frame_headers([frame.id], lane, h.new_traceparent())
            found.append(Outgoing(topic, partition_for(name, PARTITIONS), encode(frame), name.encode(), headers))
    return found


async def live_site(
    models: Path, records: list[Outgoing], model: str = "regions@1", *, shed: bool = False
) -> LiveSite:
    """Run frames through the live stages, which write their results and events to the log.

    With ``shed``, an overloaded node sheds some frames.
    """
    clock = ManualClock(started_ns=BEGIN_NS)
    log, config = MemoryLog(PARTITIONS, clock), site()
    served = source(models).make(PIPELINE.model_copy(update={"model": model}))
    assert isinstance(served, ServedModel)
    served.open()
    runners = [MemoryRunner(PrepareStage(lane, config, clock), log, clock) for lane in ("live", "late")]
    analyse = MemoryRunner(AnalyseStage(config, PARTITIONS), log, clock)
    tps = [TopicPartition(topic, p) for topic in (BATCHES, BATCHES_LATE) for p in range(PARTITIONS)]
    nodes = await take_over(log, tps, clock)
    for number, record in enumerate(records):
        clock.seconds = max(clock.seconds, number // len(KINDS) / FPS + 0.1)
        await log.produce(record)
        if number % 2 == 0:  # a repeated frame
            await log.produce(record)
        if number % 7 == 6 or number == len(records) - 1:
            for runner in runners:
                await runner.run()
                await runner.advance(0.06)  # closes the open batches
            for node in nodes:
                jobs = [
                    node.take(one, frozenset({"p"}))
                    async for one in log.read(*node.tp, node.next, await end(log, node.tp))
                ]
                if shed and number % 5 == 0:
                    for job in jobs:
                        job.shed("stale", lambda item: item.seq % 3 == 0)
                tasks = [task for job in jobs for task in job.tasks.values()]
                served.classify(MergedBatch("p", tasks, jobs))
                if jobs:
                    await node.write(clock.now_ns, clock.monotonic())
            await analyse.run()
    served.close()
    events = [decode_json(Event, one.value) for one in await all_of(log, EVENTS)]
    return LiveSite(log, config, events)


async def end(log: MemoryLog, tp: TopicPartition) -> int:
    """Return the end of a partition."""
    return (await log.ends(tp.topic))[tp.partition]


async def all_of(log: MemoryLog, topic: str) -> list:  # type: ignore[type-arg]
    """Return the records of all partitions of a topic."""
    return [
        one
        for p in await log.ends(topic)
        async for one in log.read(topic, p, 0, await end(log, TopicPartition(topic, p)))
    ]


async def outcomes(log: MemoryLog) -> dict[str, int]:
    """Return the number of results by outcome."""
    found: dict[str, int] = {}
    for one in await all_of(log, RESULTS):
        outcome = decode(Result, one.value).outcome
        found[outcome] = found.get(outcome, 0) + 1
    return found
