"""Restart and kill the two workers of each stage, and compare events and measures with those of an undisturbed run.

``python -m benchmarks.chaos.rebalances --rebalances 100 --kills 30`` sends frames of a simulated road at a steady
rate. Two workers each of the stages prepare, engine and analyse share the partitions. By a seeded plan, a worker gets
SIGKILL, or SIGTERM, and starts again. Each kill and each termination of a worker causes two rebalances: one when the
worker leaves its group, and one when it joins again. The run passes if

- the ledger balances, with one classified result for each frame and no dead letter,
- the ids of events and measures are those that an undisturbed stage makes from the same results, each once,
- and the measures are equal in full.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import typer
from aiokafka import AIOKafkaProducer

from benchmarks.chaos.evidence import records_of
from benchmarks.pipeline import CAMERAS, PipelineCase, shipped_case, until
from benchmarks.report import KeepIt, conclude, log_progress
from benchmarks.serving.results import ResultCount
from deploy.local.kafka.broker import Broker
from deploy.local.stack import StackFiles, services
from deploy.local.supervisor import ServiceSpec, Supervisor
from ingest.contract import headers as h
from ingest.contract.codec import decode, decode_json, encode
from ingest.contract.identity import LIVE
from ingest.contract.records import Event, Frame, Measure, Result
from ingest.contract.topics import DEADLETTER, EVENTS, FRAMES, MEASURES, RESULTS, partition_for
from ingest.kafka import settings as kafka
from ingest.kafka import topicadmin
from ingest.kafka.kafkalog import KafkaLog
from ingest.kafka.log import Log, Outgoing, TopicPartition
from ingest.kafka.memorylog import MemoryLog
from ingest.kafka.settings import KafkaSettings
from ingest.ledger.auditor import audit
from ingest.runtime import eventloop
from ingest.runtime.clock import ManualClock
from ingest.site import CameraConfig, ConfigEntry, MeasureConfig
from ingest.site.topic.store import publish
from ingest.site.topic.view import Config
from stream.analyse.rules.line import LineRule
from stream.analyse.rules.zone import ZoneRule
from stream.analyse.stage import AnalyseStage
from stream.runner.memory import MemoryRunner

STAGES = ("prepare-live", "engine", "analyse")
WORKERS = tuple(f"{stage}-{number}" for stage in STAGES for number in (1, 2))
SESSION_TIMEOUT_S = 8.0
"""Session timeout of an engine node in seconds: shorter than the default, so that a killed node leaves its group
sooner."""
CHANGES_PER_FAULT = 2
"""Number of rebalances that one fault causes: a worker leaves its group, and joins again."""
HURRIED = 0.2
"""Share of faults after which the next fault does not wait, so that it may hit a worker that starts or a group that
rebalances."""
RESULTS_S = 300.0
"""Maximum time until the stage analyse has processed all results, in seconds."""
COMMITS_S = 0.5
"""Pause between two reads of committed offsets, in seconds."""
AUDIT_S = 60.0
"""Maximum time that the audit waits for frames in processing, in seconds."""
PICTURES = 300
_EXAMPLES = 5


class WorkerFault(NamedTuple):
    """A fault of one worker, ``after_s`` seconds after the previous fault.

    Unless ``hurried``, the next fault waits until the rebalances that this fault caused have ended.
    """

    after_s: float
    worker: str
    kind: Literal["kill", "stop"]
    hurried: bool = False


def plan(rebalances: int, kills: int, seed: int, longest_s: float) -> list[WorkerFault]:
    """Return the faults that cause at least ``rebalances`` rebalances, with ``kills`` kills among them. The same seed
    gives the same plan."""
    chance = random.Random(seed)
    count = max(kills, -(-rebalances // CHANGES_PER_FAULT))
    killed = set(chance.sample(range(count), kills))
    return [
        WorkerFault(
            round(chance.uniform(0.0, longest_s), 2),
            chance.choice(WORKERS),
            "kill" if number in killed else "stop",
            chance.random() < HURRIED,
        )
        for number in range(count)
    ]


@dataclass(frozen=True)
class RebalanceEvidence:
    """The topics after a run. ``expected_events`` and ``expected_measures`` are those that an undisturbed worker
    writes for the same results.

    ``results`` has the number of classified results by frame. ``assignments`` counts the assignments of partitions
    that the workers logged.
    """

    planned: Sequence[WorkerFault]
    sent: int
    unaccounted: int = 0
    ledger_duplicates: int = 0
    dead_letters: int = 0
    assignments: int = 0
    results: Counter[str] = field(default_factory=Counter)
    events: Sequence[Event] = ()
    expected_events: Sequence[Event] = ()
    measures: Sequence[Measure] = ()
    expected_measures: Sequence[Measure] = ()


def judge(evidence: RebalanceEvidence) -> list[str]:
    """Return the failed checks of a run. Pure."""
    faults = []
    if evidence.unaccounted or evidence.ledger_duplicates:
        faults.append(
            f"ledger: {evidence.unaccounted} frames unaccounted, {evidence.ledger_duplicates} duplicates: expected 0"
        )
    if evidence.dead_letters:
        faults.append(f"{evidence.dead_letters} dead letters: expected 0")
    if len(evidence.results) != evidence.sent or evidence.results.total() != evidence.sent:
        faults.append(f"{evidence.sent} frames have {evidence.results.total()} results: expected one each")
    if evidence.assignments < CHANGES_PER_FAULT * len(evidence.planned):
        wanted = CHANGES_PER_FAULT * len(evidence.planned)
        faults.append(f"{evidence.assignments} assignments of partitions: expected at least {wanted}")
    if not evidence.expected_events:
        faults.append("no events: expected some, because two empty runs are always equal")
    events, wanted_events = ([one.id for one in events] for events in (evidence.events, evidence.expected_events))
    faults += _differences("events", events, wanted_events)
    measures, wanted_measures = (
        [one.model_dump_json() for one in measures] for measures in (evidence.measures, evidence.expected_measures)
    )
    return faults + _differences("measures", measures, wanted_measures)


def _differences(name: str, found: Sequence[str], expected: Sequence[str]) -> list[str]:
    lost, more = Counter(expected) - Counter(found), Counter(found) - Counter(expected)
    return [
        f"{differing.total()} {name} {verb}: {', '.join(list(differing)[:_EXAMPLES])}"
        for verb, differing in (("lost", lost), ("too many", more))
        if differing
    ]


def site(case: PipelineCase) -> list[ConfigEntry]:
    """Return the pipeline, and a camera with rules and measures for each partition."""
    found: list[ConfigEntry] = [case.pipeline]
    for name in cameras():
        of: dict[str, Any] = {"camera": name, "pipeline": case.pipeline.name}
        line: dict[str, Any] = {"start": (0.5, 1.0), "end": (0.5, 0.0)}
        right = ((0.5, 0.0), (1.0, 0.0), (1.0, 1.0), (0.5, 1.0))
        found += [
            CameraConfig(name=name, source="device:0"),
            LineRule(name=f"line-{name}", **of, **line),
            ZoneRule(name=f"zone-{name}", **of, polygon=right, dwell_s=1.0),
            MeasureConfig(name=f"passes-{name}", type="line", **of, **line),
            MeasureConfig(name=f"stays-{name}", type="zone", **of, polygon=right),
        ]
    return found


def cameras() -> list[str]:
    """Return the names of the cameras."""
    return [f"road-{number}" for number in range(CAMERAS)]


def workers(settings: KafkaSettings, folder: Path, models: Path) -> list[ServiceSpec]:
    """Return two workers of each stage. The workers have no fixed group member id, so a worker that restarts does not
    keep its partitions."""
    specs = {spec.name: spec for spec in services(StackFiles(folder / "stack"), settings, models, 0)}
    found = []
    for name in WORKERS:
        spec = specs[name.rpartition("-")[0]]
        argv = [part for part in spec.argv if not part.startswith("--instance")]
        session = [f"--session-timeout={SESSION_TIMEOUT_S}"] if name.startswith("engine") else []
        found.append(replace(spec, name=name, argv=[*argv, *session]))
    return found


def assignments(folder: Path) -> int:
    """Return how often the workers have logged an assignment of partitions."""
    return sum((folder / f"{name}.log").read_text().count("partitions_assigned") for name in WORKERS)


class DisturbedRun:
    """One run: sends frames, causes the faults, and counts results. Every camera sends ``fps`` frames per second."""

    def __init__(self, case: PipelineCase, settings: KafkaSettings, fps: float) -> None:
        self._case, self._settings, self._fps = case, settings, fps
        self._over = False
        self._results = ResultCount(settings, "rebalances")
        self.sent = 0

    async def run(self, supervisor: Supervisor, faults: Sequence[WorkerFault]) -> None:
        """Send frames while the faults happen, and return when every frame is processed."""
        producer = kafka.producer(self._settings, "rebalances")
        await producer.start()
        try:
            async with self._results, supervisor:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._send(producer))
                    await self._results.reach(CAMERAS)
                    await self._disturb(supervisor, faults)
                    self._over = True
                await self._results.reach(self.sent)
                async with asyncio.timeout(RESULTS_S):
                    await self._analysed()
        finally:
            await producer.stop()

    async def _send(self, producer: AIOKafkaProducer) -> None:
        topic, started_s, seq = self._settings.topic(FRAMES), time.perf_counter(), 0
        while not self._over:
            picture = self._case.pictures[seq % len(self._case.pictures)]
            for camera in cameras():
                frame = Frame(
                    camera=camera,
                    epoch=1,
                    seq=seq,
                    captured_ns=time.time_ns(),
                    width=picture.width,
                    height=picture.height,
                    image=picture.jpeg,
                    motion=picture.motion,
                )
                headers = list(h.frame_headers([frame.id], LIVE).items())
                partition = partition_for(camera, CAMERAS)
                await producer.send(topic, encode(frame), key=camera.encode(), partition=partition, headers=headers)
                self.sent += 1
            seq += 1
            await asyncio.sleep(max(0.0, started_s + seq / self._fps - time.perf_counter()))
        await producer.flush()

    async def _disturb(self, supervisor: Supervisor, faults: Sequence[WorkerFault]) -> None:
        for number, fault in enumerate(faults):
            await asyncio.sleep(fault.after_s)
            before = assignments(supervisor.folder)
            await until(lambda: supervisor.pid(fault.worker) is not None)  # noqa: B023  (awaited in this turn)
            if fault.kind == "stop":
                await supervisor.restart(fault.worker)
            else:
                pid, restarted = supervisor.pid(fault.worker), supervisor.restarts()[fault.worker] + 1
                if pid is not None:
                    os.kill(pid, signal.SIGKILL)
                    await until(lambda: supervisor.restarts()[fault.worker] >= restarted)  # noqa: B023
            log_progress(
                f"{number + 1}: {fault.kind} {fault.worker}, {self._results.total} results of {self.sent} frames"
            )
            if not fault.hurried:  # both workers have their partitions again
                await until(lambda: assignments(supervisor.folder) >= before + CHANGES_PER_FAULT)  # noqa: B023

    async def _analysed(self) -> None:
        """Wait until the stage analyse has committed the last result of each partition."""
        async with KafkaLog(self._settings, "rebalances-lag") as log:
            last = {record.partition: record.offset for record in await records_of(log, RESULTS)}
            while last:
                await asyncio.sleep(COMMITS_S)
                for partition, offset in list(last.items()):
                    if (await log.committed("analyse", TopicPartition(RESULTS, partition)) or 0) > offset:
                        del last[partition]


async def undisturbed(log: Log, config: Config) -> tuple[list[Event], list[Measure]]:
    """Return the events and measures that a stage makes from the results of a log if it never restarts."""
    count, clock = (await log.partitions())[RESULTS], ManualClock()
    copy = MemoryLog(count, clock)
    for record in await records_of(log, RESULTS):
        await copy.produce(Outgoing(RESULTS, record.partition, record.value, record.key, record.headers))
    await MemoryRunner(AnalyseStage(config, count), copy, clock).run()
    events = [decode_json(Event, record.value) for record in await records_of(copy, EVENTS)]
    return events, [decode_json(Measure, record.value) for record in await records_of(copy, MEASURES)]


async def run(faults: Sequence[WorkerFault], fps: float, broker: Broker) -> tuple[RebalanceEvidence, float]:
    """Run the benchmark. Return the evidence, and the length of the run in seconds."""
    settings, case = KafkaSettings(bootstrap=broker.bootstrap, prefix="rebalances."), shipped_case(PICTURES)
    entries = site(case)
    await topicadmin.create(settings, partitions=CAMERAS)
    async with KafkaLog(settings, "rebalances") as log:
        await publish(log, entries)
    with tempfile.TemporaryDirectory() as name:
        folder, began_s = Path(name), time.monotonic()
        disturbed = DisturbedRun(case, settings, fps)
        await disturbed.run(Supervisor(workers(settings, folder, case.repository.root), folder), faults)
        took_s = time.monotonic() - began_s
        assigned = assignments(folder)
    async with KafkaLog(settings, "rebalances") as log:
        totals = (await audit(log, wait_s=AUDIT_S)).totals
        found = [decode(Result, record.value) for record in await records_of(log, RESULTS)]
        events, measures = await undisturbed(log, Config({entry.key: entry for entry in entries}))
        evidence = RebalanceEvidence(
            faults,
            disturbed.sent,
            totals.unaccounted,
            totals.duplicates,
            sum((await log.ends(DEADLETTER)).values()),
            assigned,
            Counter(str(one.id) for one in found if one.outcome == "classified"),
            [decode_json(Event, record.value) for record in await records_of(log, EVENTS)],
            events,
            [decode_json(Measure, record.value) for record in await records_of(log, MEASURES)],
            measures,
        )
    return evidence, took_s


def main(
    rebalances: Annotated[int, typer.Option(min=2, help="Number of rebalances, two for each fault.")] = 100,
    kills: Annotated[int, typer.Option(min=0, help="Number of faults that are kills.")] = 30,
    seed: Annotated[int, typer.Option(help="Seed of the plan.")] = 1,
    longest: Annotated[float, typer.Option(min=0.0, help="Longest pause between two faults in s.")] = 8.0,
    fps: Annotated[float, typer.Option(min=1.0, help="Frames per second of each camera.")] = 5.0,
    keep_it: KeepIt = False,
) -> None:
    """Restart and kill workers, and print rebalances, results, events, measures and the differences found.

    Exit with 1 if a fault was found.
    """
    faults = plan(rebalances, kills, seed, longest)
    with tempfile.TemporaryDirectory() as name, Broker(folder=Path(name) / "kafka") as broker:
        evidence, took_s = eventloop.run(run(faults, fps, broker))
    figures = {
        "seed": seed,
        "seconds": round(took_s, 1),
        "kills": kills,
        "stops": len(faults) - kills,
        "rebalances": CHANGES_PER_FAULT * len(faults),
        "assignments": evidence.assignments,
        "frames": evidence.sent,
        "results": evidence.results.total(),
        "unaccounted": evidence.unaccounted,
        "duplicates": evidence.ledger_duplicates,
        "dead_letters": evidence.dead_letters,
        "events": len(evidence.events),
        "measures": len(evidence.measures),
        "faults": judge(evidence),
        "plan": [fault._asdict() for fault in faults],
    }
    conclude("rebalances", figures, judge(evidence), keep_it=keep_it, quiet="plan")


if __name__ == "__main__":
    typer.run(main)
