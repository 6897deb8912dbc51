"""Benchmark of the start-up time and the memory use of the pipeline's services: prepare, engine and analyse.

``python -m benchmarks.serving.start`` starts the three processes at the same time, sends frames, and measures the
time from the start of the processes to the first result. Then the services classify frames at full load, and the
memory of each process is measured. With ``--beside CHECKOUT``, the services of another checkout run in turns with
the services of this checkout, so that a machine that slows down during the run slows both of them down.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka import TopicPartition as KafkaPartition

from benchmarks.peers.usage import cpu_s
from benchmarks.pipeline import (
    CAMERAS,
    PipelineCase,
    cases,
    frame_record,
    fresh_broker,
    publish_site,
    stack_specs,
)
from benchmarks.report import ROOT, KeepIt, conclude, log_progress
from deploy.local.kafka.broker import Broker
from deploy.local.supervisor import ServiceSpec, Supervisor
from ingest.contract.topics import FRAMES, RESULTS
from ingest.kafka import settings as kafka
from ingest.kafka import topicadmin
from ingest.kafka.settings import KafkaSettings
from ingest.runtime import eventloop
from ingest.runtime.clock import Deadline
from ingest.runtime.cpus import cpu_count

START_FRAMES = 40
"""Number of frames that are sent while the services start."""
WAIT_S = 120.0
"""Maximum time in seconds for the results of the frames that were sent."""
POLL_MS = 20


class Turn:
    """One start of the services of a checkout, on topics that no other turn uses."""

    def __init__(self, case: PipelineCase, settings: KafkaSettings, checkout: Path, threads: int) -> None:
        self._case, self._settings = case, settings
        folder = ROOT / ".sightline" / "bench-services"
        self._specs = [_of_checkout(spec, checkout) for spec in stack_specs(case, settings, folder, threads)]
        self._supervisor = Supervisor(self._specs, folder / settings.prefix)
        self._epoch = 0

    async def measure(self, frames: int, bursts: int) -> dict[str, Any]:
        """Start the services, classify ``bursts`` times ``frames`` frames, and return all figures of the turn."""
        await topicadmin.create(self._settings, partitions=CAMERAS)
        await publish_site(self._settings, self._case.pipeline)
        name = self._settings.topic(RESULTS)
        producer, results = kafka.producer(self._settings, "bench"), kafka.consumer(self._settings, "bench")
        await producer.start()
        await results.start()
        results.assign([KafkaPartition(name, partition) for partition in range(CAMERAS)])
        try:
            started_s = time.perf_counter()
            async with self._supervisor:
                first_s = await self._run(producer, results, START_FRAMES, to_first=True) - started_s
                figures: dict[str, Any] = {
                    "first_result_s": round(first_s, 2),
                    "cpu_s": self._each(lambda pid: round(cpu_s(pid), 2)),
                }
                await self._count(results, START_FRAMES - self._came)
                before = self._each(cpu_s)
                burst_s = time.perf_counter()
                for _ in range(bursts):
                    await self._run(producer, results, frames)
                if bursts:
                    sent, after = frames * bursts, self._each(cpu_s)
                    figures["fps"] = round(sent / (time.perf_counter() - burst_s), 1)
                    figures["cpu_ms_a_frame"] = {n: round(1000 * (after[n] - before[n]) / sent, 2) for n in after}
                    figures["memory_mb"] = self._each(memory_mb)
                return figures
        finally:
            await producer.stop()
            await results.stop()
            await topicadmin.remove(self._settings, prefix=self._settings.prefix)

    async def _run(
        self, producer: AIOKafkaProducer, results: AIOKafkaConsumer, frames: int, *, to_first: bool = False
    ) -> float:
        """Send frames and wait for their results. Return the arrival time of the last result, or with ``to_first`` of
        the first result."""
        self._epoch += 1
        for number in range(frames):
            partition, camera, value, headers = frame_record(self._case, number, self._epoch)
            topic = self._settings.topic(FRAMES)
            await producer.send(topic, value, key=camera.encode(), partition=partition, headers=list(headers.items()))
        return await self._count(results, 1 if to_first else frames)

    async def _count(self, results: AIOKafkaConsumer, wanted: int) -> float:
        self._came, deadline = 0, Deadline.after(WAIT_S)
        while self._came < wanted:
            found = await results.getmany(timeout_ms=POLL_MS)
            self._came += sum(map(len, found.values()))
            if deadline.passed:
                raise TimeoutError(
                    f"{self._came} of {wanted} results within {WAIT_S:.0f} s: see {self._supervisor.folder}"
                )
        return time.perf_counter()

    def _each(self, figure: Callable[[int], Any]) -> dict[str, Any]:
        return {spec.name: figure(self._supervisor.pid(spec.name) or 0) for spec in self._specs}


def _of_checkout(spec: ServiceSpec, checkout: Path) -> ServiceSpec:
    """Return a service of a checkout, with its environment. Python's option ``-P`` keeps the checkout that runs the
    benchmark out of the measured checkout's module path."""
    python = checkout / ".venv" / "bin" / "python"
    return replace(spec, argv=[str(python) if python.exists() else sys.executable, "-P", *spec.argv[1:]])


def memory_mb(pid: int) -> dict[str, float]:
    """Return the proportional, resident and private memory of a process, and its peak, in MB. Source: proc(5)."""
    rollup = _kib(Path(f"/proc/{pid}/smaps_rollup"))
    status = _kib(Path(f"/proc/{pid}/status"))
    found = {"pss": rollup["Pss"], "rss": rollup["Rss"], "anonymous": rollup["Anonymous"], "peak": status["VmHWM"]}
    return {name: round(kib * 1024 / 1e6, 1) for name, kib in found.items()}


def _kib(file: Path) -> dict[str, int]:
    lines = (line.split() for line in file.read_text().splitlines())
    return {words[0].rstrip(":"): int(words[1]) for words in lines if words[-1:] == ["kB"]}


async def _turn(case: PipelineCase, node: Broker, checkout: Path, frames: int, bursts: int) -> dict[str, Any]:
    prefix = f"sightline-start-{time.time_ns() // 1_000_000}."
    settings = KafkaSettings(bootstrap=node.bootstrap, prefix=prefix)
    return await Turn(case, settings, checkout, cpu_count()).measure(frames, bursts)


def main(
    turns: Annotated[int, typer.Option(min=1, help="Starts of each checkout.")] = 3,
    frames: Annotated[int, typer.Option(min=20, help="Frames per burst.")] = 600,
    bursts: Annotated[int, typer.Option(min=0, help="Bursts after each start. 0: measure the start only.")] = 2,
    beside: Annotated[Path | None, typer.Option(help="Another checkout to measure in turns.")] = None,
    model: Annotated[str, typer.Option(help="Model: regions or yolox-nano.")] = "yolox-nano",
    keep_it: KeepIt = False,
) -> None:
    """Measure the start-up time and the memory use of the services, and print the figures of each turn and their
    medians."""
    case = next(case for case in cases(frames) if case.model.manifest.name == model)
    checkouts = {"this": ROOT, **({"beside": beside.resolve()} if beside else {})}
    measured: dict[str, list[dict[str, Any]]] = {name: [] for name in checkouts}
    with fresh_broker("bench-start") as node:
        for number in range(turns):
            for name, checkout in checkouts.items():
                measured[name].append(eventloop.run(_turn(case, node, checkout, frames, bursts)))
                log_progress(f"{name}, turn {number + 1}: {measured[name][-1]}")
    firsts = {name: statistics.median(turn["first_result_s"] for turn in found) for name, found in measured.items()}
    conclude("start", {"case": case.name, "first_result_s_median": firsts, "turns": measured}, [], keep_it=keep_it)


if __name__ == "__main__":
    typer.run(main)
