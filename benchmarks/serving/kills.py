"""Kill one of two engine nodes again and again, and check that each frame has exactly one result.

``python -m benchmarks.serving.kills --kills 30 --seed 1 --keep`` sends frames at a steady rate to the prepare stage.
Two engine nodes in one consumer group share the partitions of the topic ``batches``. At random times, SIGKILL ends
one of the nodes, and the supervisor restarts the node. The time between two kills is from 0 to 20 s, so that some
kills hit a node that is taking over partitions, or happen during a rebalance. The run passes if

- the ledger balances: no frame is unaccounted for, and no frame has two final states,
- the topic ``results`` has one classified result for each frame that was sent, and no frame has a dead letter,
- the number of killed processes equals the planned number.

``ended`` counts the node restarts that no kill caused. On a busy machine, a node may miss its heartbeats for longer
than its session timeout; the other node then takes over the silent node's partitions and fences the silent node.
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
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.pipeline import CAMERAS, PipelineCase, publish_site, shipped_case, until
from benchmarks.report import KeepIt, conclude, log_progress
from benchmarks.serving.results import ResultCount
from benchmarks.serving.sender import SteadySender
from deploy.local.kafka.broker import Broker
from deploy.local.stack import StackFiles, services
from deploy.local.supervisor import ServiceSpec, Supervisor
from ingest.contract.codec import decode
from ingest.contract.records import Result
from ingest.contract.topics import DEADLETTER, RESULTS
from ingest.kafka import settings as kafka
from ingest.kafka import topicadmin
from ingest.kafka.kafkalog import KafkaLog
from ingest.kafka.settings import KafkaSettings
from ingest.ledger.auditor import audit
from ingest.runtime import eventloop

NODES = ("engine-1", "engine-2")
SESSION_TIMEOUT_S = 8.0
"""Session timeout of a node in the consumer group, in seconds: shorter than the default, so that more nodes lose
their partitions during the run."""
AUDIT_S = 60.0
"""Maximum time that the audit waits for frames in processing, in seconds."""
PICTURES = 300


@dataclass(frozen=True)
class NodeKill:
    """One kill. ``results`` is the number of results since the previous kill."""

    node: str
    at_s: float
    results: int


@dataclass(frozen=True)
class NodeKillEvidence:
    """Figures of a finished run. ``results`` has the number of classified results by frame id."""

    kills: Sequence[NodeKill]
    planned: int
    sent: int
    results: Counter[str]
    dead_letters: int
    unaccounted: int
    ledger_duplicates: int


def judge(evidence: NodeKillEvidence) -> list[str]:
    """Return the failed checks of a run. Pure."""
    faults = []
    if evidence.unaccounted or evidence.ledger_duplicates:
        faults.append(
            f"ledger: {evidence.unaccounted} frames unaccounted, {evidence.ledger_duplicates} duplicates: expected 0"
        )
    if len(evidence.results) != evidence.sent:
        faults.append(f"{evidence.sent} frames were sent, {len(evidence.results)} of them have a result")
    twice = sorted(frame for frame, count in evidence.results.items() if count > 1)
    if twice:
        faults.append(f"{len(twice)} frames have more than one result, such as {twice[0]}")
    if evidence.dead_letters:
        faults.append(f"{evidence.dead_letters} frames have a dead letter")
    if len(evidence.kills) != evidence.planned:
        faults.append(f"{len(evidence.kills)} kills: expected {evidence.planned}")
    return faults


def plan(kills: int, seed: int, longest_s: float) -> list[tuple[float, str]]:
    """Return a pair for each kill: the pause before the kill in seconds, and the node to kill.

    The same seed gives the same plan.
    """
    chance = random.Random(seed)
    return [(round(chance.uniform(0.0, longest_s), 2), chance.choice(NODES)) for _ in range(kills)]


class NodeKilling:
    """One run: sends frames, counts results and kills nodes."""

    def __init__(self, case: PipelineCase, settings: KafkaSettings, fps: float) -> None:
        self._settings = settings
        self.sender = SteadySender(case, settings, fps)
        self._results = ResultCount(settings, "nodekills")
        self.kills: list[NodeKill] = []

    async def run(self, supervisor: Supervisor, steps: Sequence[tuple[float, str]]) -> None:
        """Send frames and execute the planned kills, and wait for the results of all frames."""
        producer = kafka.producer(self._settings, "nodekills")
        await producer.start()
        try:
            async with self._results, supervisor:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self.sender.run(producer))
                    await self._results.reach(CAMERAS)
                    await self._kill_all(supervisor, steps)
                    self.sender.stop()
                await self._results.reach(self.sender.sent)
        finally:
            await producer.stop()

    async def _kill_all(self, supervisor: Supervisor, steps: Sequence[tuple[float, str]]) -> None:
        began_s, before = time.monotonic(), self._results.total
        for pause_s, node in steps:
            await asyncio.sleep(pause_s)
            await until(lambda: supervisor.pid(node) is not None)  # noqa: B023  (awaited in this turn of the loop)
            pid = supervisor.pid(node)
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            at_s, seen = round(time.monotonic() - began_s, 1), self._results.total
            self.kills.append(NodeKill(node, at_s, seen - before))
            before = seen
            log_progress(f"{at_s} s: killed {node}, {seen} results of {self.sender.sent} frames")
            restarted = supervisor.restarts()[node] + 1
            await until(lambda: supervisor.restarts()[node] >= restarted)  # noqa: B023


async def _results(log: KafkaLog) -> Counter[str]:
    """Return the number of classified results by frame id."""
    found: Counter[str] = Counter()
    for partition, end in (await log.ends(RESULTS)).items():
        async for record in log.read(RESULTS, partition, 0, end):
            result = decode(Result, record.value)
            found[str(result.id)] += result.outcome == "classified"
    return found


def nodes(settings: KafkaSettings, folder: Path, models: Path) -> list[ServiceSpec]:
    """Return the services of a run: the prepare stage and two engine nodes."""
    specs = {spec.name: spec for spec in services(StackFiles(folder / "stack"), settings, models, 0)}
    engine = specs["engine"]
    argv = [*engine.argv, f"--session-timeout={SESSION_TIMEOUT_S}"]
    return [specs["prepare-live"], *(replace(engine, name=name, argv=argv) for name in NODES)]


async def run(kills: int, seed: int, longest_s: float, fps: float, broker: Broker) -> dict[str, Any]:
    """Run the benchmark, and return the report with the faults found."""
    settings = KafkaSettings(bootstrap=broker.bootstrap, prefix="nodekills.")
    case = shipped_case(PICTURES)
    await topicadmin.create(settings, partitions=CAMERAS)
    await publish_site(settings, case.pipeline)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        supervisor = Supervisor(nodes(settings, folder, case.repository.root), folder, seed=seed)
        killing, began_s = NodeKilling(case, settings, fps), time.monotonic()
        await killing.run(supervisor, plan(kills, seed, longest_s))
        took_s = time.monotonic() - began_s
        takeovers = sum((folder / f"{node}.log").read_text().count("partitions_assigned") for node in NODES)
    async with KafkaLog(settings, "nodekills") as log:
        totals = (await audit(log, wait_s=AUDIT_S)).totals
        dead, results = sum((await log.ends(DEADLETTER)).values()), await _results(log)
    restarts = sum(supervisor.restarts()[node] for node in NODES)
    evidence = NodeKillEvidence(
        killing.kills,
        kills,
        killing.sender.sent,
        results,
        dead,
        totals.unaccounted,
        totals.duplicates,
    )
    return {
        "kills": len(killing.kills),
        "seconds": round(took_s, 1),
        "frames": killing.sender.sent,
        "results": results.total(),
        "unaccounted": totals.unaccounted,
        "duplicates": totals.duplicates,
        "dead_letters": dead,
        "ended": restarts - len(killing.kills),
        "takeovers": takeovers,
        "each_kill": [asdict(kill) for kill in killing.kills],
        "faults": judge(evidence),
    }


def main(
    kills: Annotated[int, typer.Option(min=1, help="Number of kills.")] = 30,
    seed: Annotated[int, typer.Option(help="Seed of the pauses and of the nodes to kill.")] = 1,
    longest: Annotated[float, typer.Option(min=0.0, help="Longest pause between two kills in s.")] = 20.0,
    fps: Annotated[float, typer.Option(min=1.0, help="Frames per second of all cameras together.")] = 40.0,
    keep_it: KeepIt = False,
) -> None:
    """Kill engine nodes, and print kills, results, unaccounted frames and duplicates.

    Exit with 1 if a fault was found.
    """
    with tempfile.TemporaryDirectory() as name, Broker(folder=Path(name) / "kafka") as broker:
        figures = eventloop.run(run(kills, seed, longest, fps, broker))
    conclude("nodekills", {"seed": seed, **figures}, figures["faults"], keep_it=keep_it, quiet="each_kill")


if __name__ == "__main__":
    typer.run(main)
