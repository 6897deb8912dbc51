"""The compared systems, their settings, and the command lines of their processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.peers.load import create_topics
from benchmarks.pipeline import PipelineCase, publish_site, stack_specs
from benchmarks.report import ROOT
from deploy.local.kafka.broker import Broker
from deploy.local.stack import ONE_THREAD
from deploy.local.supervisor import ServiceSpec, Supervisor
from ingest.contract.groups import ENGINES
from ingest.contract.topics import FRAMES, RESULTS
from ingest.kafka import topicadmin
from ingest.kafka.settings import KafkaSettings

PEERS = ROOT / ".sightline" / "peers"
"""Folder of the peers' environments, which ``setup.sh`` creates."""
GROUP = "peer"
BROKER = "broker"
PROGRAMS = {"faststream": "faststreamapp", "quixstreams": "quixapp", "aiokafka": "aiokafkaloop"}


@dataclass(frozen=True)
class FrameSystem:
    """A system that classifies frames, and its setting.

    A peer has ``processes`` processes with ``threads`` threads, which fetch ``batch`` frames at once. Sightline has
    ``nodes`` engine nodes with ``processes`` instances each.
    """

    name: str
    processes: int = 2
    threads: int = 1
    batch: int = 16
    denoise: bool = False
    fused: bool = False
    """Whether Sightline's engine nodes prepare the frames themselves."""
    nodes: int = 1

    @property
    def program(self) -> str | None:
        """The name of the peer's program, or None for Sightline."""
        return PROGRAMS.get(self.name)

    @property
    def members(self) -> tuple[str, int]:
        """The consumer group that reads the frames or batches to classify, and its number of members."""
        return (GROUP, self.processes) if self.program else (ENGINES, self.nodes)

    @property
    def label(self) -> str:
        """Name of the system with its setting, to show to people."""
        if self.program is None:
            return f"{self.name}, denoise {'on' if self.denoise else 'off'}, {self.nodes} engine nodes"
        return f"{self.name}, {self.processes} processes, {self.threads} threads, batches up to {self.batch}"

    async def prepare(self, case: PipelineCase, settings: KafkaSettings, partitions: int) -> None:
        """Create the topics. For Sightline, also write its cameras and models to the topic ``config``."""
        if self.program:
            await create_topics(settings, (FRAMES, RESULTS), partitions)
            return
        await topicadmin.create(settings, partitions=partitions)
        denoise = "auto" if self.denoise else "none"
        await publish_site(settings, case.pipeline.model_copy(update={"denoise": denoise}), partitions)

    def specs(self, case: PipelineCase, settings: KafkaSettings, folder: Path) -> list[ServiceSpec]:
        """Return the specifications of the system's processes."""
        if self.program is None:
            specs = stack_specs(case, settings, folder, self.processes, fused=self.fused)
            engine = next(spec for spec in specs if spec.name == "engine")
            argv = [*engine.argv, "--backend=onnxruntime"]
            nodes = [replace(engine, name=f"engine-{number}", argv=argv) for number in range(self.nodes)]
            return [*nodes, *(spec for spec in specs if spec is not engine)]
        arguments = [
            f"--source={settings.topic(FRAMES)}",
            f"--target={settings.topic(RESULTS)}",
            f"--group={settings.group(GROUP)}",
            f"--pipeline={case.pipeline.model_dump_json()}",
            f"--model={case.model.folder}",
            f"--threads={self.threads}",
            f"--batch={self.batch}",
        ]
        return [
            peer_spec(f"worker-{number}", self.name, self.program, settings, arguments)
            for number in range(self.processes)
        ]


def peer_spec(
    name: str, environment: str, program: str, settings: KafkaSettings, arguments: Sequence[str]
) -> ServiceSpec:
    """Return the specification of a process that runs a peer's program in the peer's environment."""
    python = PEERS / environment / "bin" / "python"
    assert python.exists(), f"{python} is missing: run benchmarks/peers/setup.sh"
    argv = [str(python), "-u", "-m", f"benchmarks.peers.jobs.{program}", f"--bootstrap={settings.bootstrap}"]
    return ServiceSpec(name=name, argv=[*argv, *arguments], env={**ONE_THREAD, "PYTHONPATH": str(ROOT)})


def pids_of(supervisor: Supervisor, broker: Broker) -> dict[str, int]:
    """Return the process ids of a system's processes and of the broker, by name."""
    pids = {name: supervisor.pid(name) for name in sorted(supervisor.alive)} | {BROKER: broker.pid}
    return {name: pid for name, pid in pids.items() if pid}


def failure(supervisor: Supervisor) -> str:
    """Return the end of the logs of the processes that have failed, or an empty text."""
    failed = [name for name, restarts in supervisor.restarts().items() if restarts]
    return "\n".join(f"{name}: {(supervisor.folder / f'{name}.log').read_text()[-2000:]}" for name in failed)


SYSTEMS = {
    "sightline": FrameSystem("sightline", denoise=True),
    "sightline-no-denoise": FrameSystem("sightline-no-denoise"),
    "sightline-fused": FrameSystem("sightline-fused", denoise=True, fused=True),
    "sightline-fused-nodes": FrameSystem("sightline-fused-nodes", processes=1, denoise=True, fused=True, nodes=2),
    "faststream": FrameSystem("faststream"),
    "quixstreams": FrameSystem("quixstreams"),
    "aiokafka": FrameSystem("aiokafka", threads=2),
}
"""The systems that the benchmark compares, by name. The settings of the peers are the best of ``CANDIDATES``,
measured with the command ``tune`` (2026-11-30, two cores)."""
CANDIDATES = [
    FrameSystem(name, processes, threads, batch)
    for name in PROGRAMS
    for processes, threads in ((2, 1), (1, 2), (2, 2))
    for batch in (4, 16)
    if name != "quixstreams" or threads == 1  # a process of Quix Streams has one thread
]
"""Settings of the peers that ``python -m benchmarks.peers tune`` compares."""
