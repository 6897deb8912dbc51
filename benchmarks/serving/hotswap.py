"""Replace the model of a live engine node again and again, and check every frame's result.

``python -m benchmarks.serving.hotswap --swaps 100 --broken 20`` sends frames at a steady rate to the prepare stage
and one engine node. During the run, the pipeline on the ``config`` topic names one model version after the other.
Some versions have a model file that no backend can load. The run passes if

- every frame has exactly one result, and no frame has a dead letter,
- no result names a broken version,
- per partition, the versions on the results never go back to an earlier one,
- the node loads or refuses each version before the pipeline names the next version,
- the node was never restarted, and its memory during the last ten swaps is at most 5 % above its memory after half of
  the swaps. During the first half of the swaps, the memory allocator's pools still grow.

Before each measurement of memory, the run waits until fewer than one second of frames have no result. On a machine
that is too slow for the rate, the node's memory would else contain its backlog, up to 100 MB of batches. The logs of
the services stay in ``.sightline/hotswap``.
"""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import psutil
import tomli_w
import typer

from benchmarks.pipeline import CAMERAS, PipelineCase, shipped_case, until
from benchmarks.report import RESULTS, ROOT, Out, keep, log_progress
from benchmarks.serving.sender import SteadySender
from deploy.local.demo.figures import Figures
from deploy.local.demo.watch import watching
from deploy.local.kafka.broker import Broker
from deploy.local.stack import StackFiles, services
from deploy.local.supervisor import Supervisor
from engines.repository.manifest import MANIFEST, read_manifest, sha256_of
from ingest.contract.codec import decode
from ingest.contract.records import Result
from ingest.contract.topics import DEADLETTER
from ingest.contract.topics import RESULTS as RESULTS_TOPIC
from ingest.kafka import settings as kafka
from ingest.kafka import topicadmin
from ingest.kafka.kafkalog import KafkaLog
from ingest.kafka.settings import KafkaSettings
from ingest.runtime import eventloop
from ingest.site import CameraConfig
from ingest.site.topic.store import publish

SERVICES = ("prepare-live", "engine")
LOGS = ROOT / ".sightline" / "hotswap"
WARM_SWAPS = 10
"""Number of model swaps before the first measurement of memory."""


def build_versions(source: Path, root: Path, count: int, broken: frozenset[int]) -> None:
    """Write ``count`` versions of a model folder below ``root``.

    The model file of a broken version is not valid ONNX.
    """
    for version in range(1, count + 1):
        folder = root / "regions" / str(version)
        shutil.copytree(source, folder)
        manifest = read_manifest(folder)
        path = folder / manifest.file
        if version in broken:
            path.write_bytes(b"no model " * 100)
        changed = manifest.model_copy(update={"version": version, "sha256": sha256_of(path)})
        (folder / MANIFEST).write_text(tomli_w.dumps(changed.model_dump(exclude_none=True)))


def judge(
    sent: int,
    results: list[tuple[int, int]],
    dead: int,
    broken: frozenset[int],
    memory_mb: list[float],
    restarts: int,
) -> list[str]:
    """Return the failed checks of a run.

    ``results`` lists the pair (partition, model version) of each result in the order of the topic.
    """
    faults = []
    if len(results) != sent or dead:
        faults.append(f"{sent} frames, {len(results)} results, {dead} dead letters: expected one result per frame")
    if wrong := sorted({version for _, version in results} & broken):
        faults.append(f"results name the broken versions {wrong}")
    for partition in sorted({partition for partition, _ in results}):
        versions = [version for at, version in results if at == partition]
        if versions != sorted(versions):
            faults.append(f"partition {partition} goes back to an earlier version")
    if restarts:
        faults.append(f"the node was restarted {restarts} times: expected none")
    medians = decades(memory_mb)
    if medians and medians[-1] > 1.05 * medians[len(medians) // 2]:
        faults.append(f"memory grew from {medians[len(medians) // 2]:.0f} to {medians[-1]:.0f} MB")
    return faults


def decades(memory_mb: Sequence[float]) -> list[float]:
    """Return the median memory of the node over each ten swaps."""
    return [statistics.median(memory_mb[first : first + 10]) for first in range(0, len(memory_mb), 10)]


class HotSwapRun:
    """One run: a producer sends frames, and the model version changes about once per second."""

    def __init__(self, case: PipelineCase, settings: KafkaSettings, fps: float, engine_log: Path) -> None:
        self._case, self._settings, self._fps, self._engine_log = case, settings, fps, engine_log
        self.sender = SteadySender(case, settings, fps)
        self.memory_mb: list[float] = []

    async def run(self, supervisor: Supervisor, versions: int, pause_s: float) -> None:
        """Swap through all versions while frames are sent, and wait for the results of all frames."""
        producer = kafka.producer(self._settings, "hotswap")
        await producer.start()
        try:
            async with watching(self._settings) as figures, supervisor:
                await until(lambda: figures.running >= set(SERVICES))
                async with asyncio.TaskGroup() as group:
                    group.create_task(self.sender.run(producer))
                    await self._swap(supervisor, figures, versions, pause_s)
                    self.sender.stop()
                await until(lambda: figures.results >= self.sender.sent)
        finally:
            await producer.stop()

    async def _swap(self, supervisor: Supervisor, figures: Figures, versions: int, pause_s: float) -> None:
        async with KafkaLog(self._settings, "hotswap") as log:
            for version in range(2, versions + 1):
                changed = self._case.pipeline.model_copy(update={"model": f"regions@{version}"})
                await publish(log, [changed])
                await until(lambda: self._decided() >= version)  # noqa: B023  (awaited in this turn of the loop)
                await asyncio.sleep(pause_s)
                await until(lambda: self.sender.sent - figures.results < self._fps)
                if version > WARM_SWAPS and (pid := supervisor.pid("engine")):
                    self.memory_mb.append(round(psutil.Process(pid).memory_info().rss / 1e6, 1))
                if version % 10 == 0:
                    log_progress(f"version {version} of {versions}, {self.sender.sent} frames")

    def _decided(self) -> int:
        """Return the number of versions that the node has served or refused."""
        text = self._engine_log.read_text()
        return text.count("model_served") + text.count("model_refused")


async def _results(settings: KafkaSettings) -> tuple[list[tuple[int, int]], int]:
    """Return the pairs (partition, model version) of all results in topic order, and the number of dead letters."""
    found = []
    async with KafkaLog(settings, "hotswap") as log:
        for partition, end in sorted((await log.ends(RESULTS_TOPIC)).items()):
            async for record in log.read(RESULTS_TOPIC, partition, 0, end):
                model = decode(Result, record.value).model
                if model:
                    found.append((partition, int(model.partition("@")[2])))
        return found, sum((await log.ends(DEADLETTER)).values())


async def run(swaps: int, broken_count: int, fps: float, pause_s: float, seed: int, broker: Broker) -> dict[str, Any]:
    """Run the benchmark, and return the report with the faults found."""
    versions = swaps + 1
    broken = frozenset(random.Random(seed).sample(range(2, versions), broken_count))
    settings = KafkaSettings(bootstrap=broker.bootstrap, prefix="hotswap.")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        case = shipped_case(300)
        build_versions(case.model.folder, folder / "models", versions, broken)
        pipeline = case.pipeline.model_copy(update={"model": "regions@1"})
        await topicadmin.create(settings, partitions=CAMERAS)
        async with KafkaLog(settings, "hotswap") as log:
            cameras = [CameraConfig(name=f"camera-{n}", source="device:0") for n in range(CAMERAS)]
            await publish(log, [pipeline, *cameras])
        specs = services(StackFiles(folder / "stack"), settings, folder / "models", 0)
        shutil.rmtree(LOGS, ignore_errors=True)
        supervisor = Supervisor([s for s in specs if s.name in SERVICES], LOGS)
        swapper = HotSwapRun(case, settings, fps, LOGS / "engine.log")
        started_s = time.perf_counter()
        await swapper.run(supervisor, versions, pause_s)
        took_s = time.perf_counter() - started_s
        results, dead = await _results(settings)
        faults = judge(swapper.sender.sent, results, dead, broken, swapper.memory_mb, supervisor.restarts()["engine"])
    served = Counter(version for _, version in results)
    return {
        "swaps": swaps,
        "broken": sorted(broken),
        "seconds": round(took_s, 1),
        "frames": swapper.sender.sent,
        "results": len(results),
        "dead_letters": dead,
        "versions_on_results": len(served),
        "engine_restarts": supervisor.restarts()["engine"],
        "engine_memory_mb": decades(swapper.memory_mb),
        "faults": faults,
    }


def main(
    swaps: Annotated[int, typer.Option(min=1, help="Changes of version.")] = 100,
    broken: Annotated[int, typer.Option(min=0, help="Versions that cannot be loaded.")] = 20,
    fps: Annotated[float, typer.Option(min=1.0, help="Frames per second of all cameras together.")] = 40.0,
    pause: Annotated[float, typer.Option(min=0.1, help="Seconds between a change and the next one.")] = 0.5,
    seed: Annotated[int, typer.Option(help="Seed of the choice of broken versions.")] = 1,
    out: Out = RESULTS,
) -> None:
    """Run the benchmark, and print and write the report. Exit with 1 if a fault was found."""
    with tempfile.TemporaryDirectory() as name, Broker(folder=Path(name) / "kafka") as broker:
        figures = eventloop.run(run(swaps, broken, fps, pause, seed, broker))
    typer.echo(json.dumps(keep("hotswap", figures, out), indent=2))
    if figures["faults"]:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
