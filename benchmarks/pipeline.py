"""Benchmark of the whole pipeline against a bare loop, which only decodes, resizes and infers, on the same frames.

``make bench`` runs the benchmark. Pipeline and bare loop run alternately, so that a machine that slows down during
the run slows both of them down. The result is the pipeline's throughput divided by the bare loop's throughput. The
bare loop has one process per core. The pipeline runs the broker, the stages ``prepare`` and ``analyse``, and an
engine node with one instance per core on the same cores. Each camera has a rule.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import typer
from aiokafka import AIOKafkaProducer

from benchmarks.peers.bareloop import FrameLoop
from benchmarks.report import DATA, RESULTS, ROOT, Out, keep
from deploy.local.demo.latencies import Latencies
from deploy.local.demo.site import pipeline_for
from deploy.local.demo.watch import watching
from deploy.local.kafka.broker import Broker
from deploy.local.kafka.config import LONG_RUNNING
from deploy.local.stack import StackFiles, services
from deploy.local.supervisor import ServiceSpec, Supervisor
from edge_agent.gate.motion import MotionDetector
from edge_agent.sources.simulated import SceneConfig, SimulatedScene
from engines.repository.adopt import COCO_LABELS, AdoptOptions, adopt
from engines.repository.manifest import Model
from engines.repository.store import Repository
from ingest.contract import headers as h
from ingest.contract.codec import encode
from ingest.contract.identity import LIVE
from ingest.contract.records import Box, Frame
from ingest.contract.topics import FRAMES
from ingest.kafka import settings as kafka
from ingest.kafka import topicadmin
from ingest.kafka.kafkalog import KafkaLog
from ingest.kafka.settings import KafkaSettings
from ingest.runtime import eventloop
from ingest.runtime.clock import Deadline
from ingest.runtime.cpus import cpu_count
from ingest.site import CameraConfig, PipelineConfig
from ingest.site.topic.store import publish
from stream.analyse.rules.line import LineRule
from stream.prepare.denoise import DenoiseKind

CAMERAS = 4
"""Number of cameras, one per partition, so that no camera waits for another."""
WAIT_S = 300.0
"""Maximum time for services to start, or for the results of one round, in seconds."""
PACED_EPOCH = 1_000_000
"""Epoch of the frames that are sent at a fixed rate to measure latency; the rounds use lower epochs."""
LOAD_SHARE = 0.5
"""Frame rate during the latency measurement, as a share of the measured throughput. At full load the queue grows
without bound, so latency would measure only the waiting time."""
SERVICES = ("prepare-live", "engine", "analyse")


@dataclass(frozen=True, slots=True)
class Picture:
    """One frame as an agent sends it. ``motion`` lists the bounding boxes of motion in px."""

    jpeg: bytes
    width: int
    height: int
    motion: tuple[Box, ...]


@dataclass
class PipelineCase:
    """Input of one measurement: frames, a model, and the pipeline configuration for the model."""

    name: str
    pictures: list[Picture]
    model: Model
    repository: Repository
    pipeline: PipelineConfig


def _pictures(frames: Iterator[np.ndarray], count: int) -> list[Picture]:
    detector, pictures = MotionDetector(0.0005), []
    for image in frames:
        motion = detector.boxes(image)
        jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()
        if motion:
            pictures.append(Picture(jpeg, image.shape[1], image.shape[0], motion))
        if len(pictures) == count:
            break
    return [pictures[i % len(pictures)] for i in range(count)]


def video_frames(path: Path) -> Iterator[np.ndarray]:
    """Yield the frames of a video file."""
    video = cv2.VideoCapture(str(path))
    while True:
        found, image = video.read()
        if not found:
            return
        yield image


def shipped_case(count: int) -> PipelineCase:
    """Return the benchmark case of the shipped model on pictures of a simulated road."""
    shipped = Repository(ROOT / "engines" / "models")
    model = shipped.open("regions")
    scene = SimulatedScene(SceneConfig("road", seed=1))
    rendered = (scene.render(i).image for i in range(100_000))
    pipeline = pipeline_for(model.manifest, regions=True)
    return PipelineCase("regions on a simulated road", _pictures(rendered, count), model, shipped, pipeline)


def yolox_case(count: int) -> PipelineCase:
    """Return the benchmark case of YOLOX-nano on a video of cars."""
    repository = Repository(ROOT / ".sightline" / "models")
    options = AdoptOptions("yolox-nano", "yolox", COCO_LABELS)
    model = adopt(DATA / "yolox-nano.onnx", repository, options)
    repository.promote("yolox-nano", model.manifest.version)
    pictures = _pictures(video_frames(DATA / "car-detection.mp4"), count)
    pipeline = pipeline_for(model.manifest, regions=False)
    return PipelineCase("YOLOX-nano on car-detection.mp4", pictures, model, repository, pipeline)


def cases(count: int) -> list[PipelineCase]:
    """Return the benchmark cases: the shipped model, and YOLOX-nano if its model file exists."""
    exists = (DATA / "yolox-nano.onnx").is_file()
    return [shipped_case(count), *([yolox_case(max(60, count // 3))] if exists else [])]


def bare_loop(case: PipelineCase, denoise: DenoiseKind = "none") -> FrameLoop:
    """Return the bare loop over the frames of a case."""
    frames = [(picture.jpeg, picture.motion) for picture in case.pictures]
    return FrameLoop(frames, case.model.folder, case.pipeline, denoise)


def frame_record(
    case: PipelineCase, number: int, epoch: int, cameras: int = CAMERAS, in_s: float = 0.0
) -> tuple[int, str, bytes, dict[str, bytes]]:
    """Return the partition, camera, value and headers of one frame that is captured ``in_s`` seconds from now.

    The frames of ``cameras`` cameras take turns, and each camera has a partition. After the last picture, the frames
    begin with the first picture again.
    """
    picture = case.pictures[number % len(case.pictures)]
    frame = Frame(
        camera=f"camera-{number % cameras}",
        epoch=epoch,
        seq=number // cameras,
        captured_ns=time.time_ns() + round(in_s * 1e9),
        width=picture.width,
        height=picture.height,
        image=picture.jpeg,
        motion=picture.motion,
    )
    return number % cameras, frame.camera, encode(frame), h.frame_headers([frame.id], LIVE)


def stack_specs(
    case: PipelineCase, settings: KafkaSettings, folder: Path, instances: int, *, fused: bool = False
) -> list[ServiceSpec]:
    """Return the specifications of the pipeline's services, with ``instances`` instances in the engine node.

    With ``fused``, the engine node prepares the frames.
    """
    specs = services(StackFiles(folder), settings, case.repository.root, 0, fused=fused)
    return [
        replace(spec, argv=[*spec.argv, f"--instances={instances}"]) if spec.name == "engine" else spec
        for spec in specs
        if spec.name in SERVICES
    ]


class Stack:
    """The pipeline's services, running on a broker that only the benchmark uses."""

    def __init__(self, case: PipelineCase, settings: KafkaSettings, folder: Path, threads: int) -> None:
        self._case, self._settings, self._threads = case, settings, threads
        self.supervisor = Supervisor(stack_specs(case, settings, folder, threads), folder)
        self.peak_mb: dict[str, float] = {}

    async def measure(self, broker: Broker, rounds: int) -> dict[str, Any]:
        """Measure the bare loop and the pipeline alternately, and return the figures of both."""
        bare: list[float] = []
        piped: list[float] = []
        producer = kafka.producer(self._settings, "bench")
        await producer.start()
        try:
            async with watching(self._settings) as figures, self.supervisor:
                await until(lambda: figures.running >= set(SERVICES))
                await self._burst(producer, figures, 0)  # warm-up: fills caches and opens partitions
                for number in range(rounds):
                    count = len(self._case.pictures)
                    bare.append((await asyncio.to_thread(bare_loop(self._case).run, count, self._threads)).fps)
                    piped.append(await self._burst(producer, figures, number + 1))
                    self._sample(broker)
                figures.result_ms = Latencies()
                await self._paced(producer, figures, statistics.median(piped) * LOAD_SHARE)
                latency = figures.result_ms.percentiles()
                self._sample(broker)
        finally:
            await producer.stop()
        ratios = [p / b for p, b in zip(piped, bare, strict=True)]
        return {
            "case": self._case.name,
            "frames": len(self._case.pictures),
            "threads": self._threads,
            "bare_fps": [round(v, 1) for v in bare],
            "pipeline_fps": [round(v, 1) for v in piped],
            "ratio": [round(v, 3) for v in ratios],
            "ratio_median": round(statistics.median(ratios), 3),
            "latency_ms_at_half_load": latency,
            "peak_memory_mb": self.peak_mb,
        }

    async def _burst(self, producer: AIOKafkaProducer, figures: Any, epoch: int) -> float:
        records = [frame_record(self._case, number, epoch + 1) for number in range(len(self._case.pictures))]
        wanted = figures.results + len(records)
        started_s = time.perf_counter()
        for partition, camera, value, headers in records:
            await self._send(producer, partition, camera, value, headers)
        await until(lambda: figures.results >= wanted)
        return len(records) / (time.perf_counter() - started_s)

    async def _paced(self, producer: AIOKafkaProducer, figures: Any, fps: float) -> None:
        wanted = figures.results + len(self._case.pictures)
        started_s = time.perf_counter()
        for number in range(len(self._case.pictures)):
            await asyncio.sleep(max(0.0, started_s + number / fps - time.perf_counter()))
            await self._send(producer, *frame_record(self._case, number, PACED_EPOCH))
        await until(lambda: figures.results >= wanted)

    async def _send(
        self, producer: AIOKafkaProducer, partition: int, camera: str, value: bytes, headers: dict[str, bytes]
    ) -> None:
        topic = self._settings.topic(FRAMES)
        await producer.send(topic, value, key=camera.encode(), partition=partition, headers=list(headers.items()))

    def _sample(self, broker: Broker) -> None:
        pids = {name: self.supervisor.pid(name) for name in SERVICES} | {"broker": broker.pid}
        for name, pid in pids.items():
            if pid:
                self.peak_mb[name] = round(max(self.peak_mb.get(name, 0.0), peak_memory_mb(pid)), 1)


def peak_memory_mb(pid: int) -> float:
    """Return the peak resident memory of a process in MB, or 0.0 if the process has ended.

    Source: VmHWM of proc(5).
    """
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    peaks_kib = (int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    return next(peaks_kib, 0) * 1024 / 1e6  # a zombie has no such line


async def until(done: Callable[[], bool]) -> None:
    """Wait until a condition holds. Raise TimeoutError after ``WAIT_S``."""
    deadline = Deadline.after(WAIT_S)
    while not done():
        if deadline.passed:
            raise TimeoutError(f"services or results did not arrive within {WAIT_S:.0f} s")
        await asyncio.sleep(0.01)


async def publish_site(settings: KafkaSettings, pipeline: PipelineConfig, cameras: int = CAMERAS) -> None:
    """Publish the configuration of a site with one pipeline and ``cameras`` cameras, each with a counting line."""
    names = [f"camera-{number}" for number in range(cameras)]
    lines = [
        LineRule(name=f"line-{name}", camera=name, pipeline=pipeline.name, start=(0.0, 0.5), end=(1.0, 0.5))
        for name in names
    ]
    async with KafkaLog(settings, "bench") as log:
        await publish(log, [pipeline, *(CameraConfig(name=name, source="device:0") for name in names), *lines])


async def _case(case: PipelineCase, broker: Broker, rounds: int, threads: int) -> dict[str, Any]:
    base = KafkaSettings(bootstrap=broker.bootstrap)
    await topicadmin.remove(base, prefix="sightline-bench-")
    settings = base.model_copy(update={"prefix": f"sightline-bench-{time.time_ns() // 1_000_000}."})
    await topicadmin.create(settings, partitions=CAMERAS)
    await publish_site(settings, case.pipeline)
    return await Stack(case, settings, ROOT / ".sightline" / "bench", threads).measure(broker, rounds)


@contextmanager
def fresh_broker(folder: str) -> Iterator[Broker]:
    """Run a broker without earlier data, in a folder below ``.sightline``, with the JVM options of a broker that runs
    for long."""
    broker = Broker(folder=ROOT / ".sightline" / folder)
    broker.clean()
    broker.start(jvm_options=LONG_RUNNING)
    try:
        yield broker
    finally:
        broker.clean()


def main(
    frames: Annotated[int, typer.Option(min=20, help="Frames per round.")] = 600,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of each side.")] = 3,
    out: Out = RESULTS,
) -> None:
    """Measure all cases, and print and write the results with date and machine."""
    threads = cpu_count()
    with fresh_broker("bench-kafka") as broker:
        measured = [eventloop.run(_case(case, broker, rounds, threads)) for case in cases(frames)]
    typer.echo(json.dumps(keep("pipeline", {"cases": measured}, out), indent=2))


if __name__ == "__main__":
    typer.run(main)
