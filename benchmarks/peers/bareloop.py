"""The bare loop: processes that only decode, resize and infer, without Kafka. It is the upper bound of a pipeline."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

import cv2

from benchmarks.peers.framejob import FrameJob
from ingest.contract.records import Box
from ingest.site import PipelineConfig
from stream.prepare.denoise import DenoiseKind, denoiser

WARM_UP_FRAMES = 20


@dataclass(frozen=True)
class FrameLoopFigures:
    """Frames per second of a bare loop, and its CPU time in ms per frame."""

    fps: float
    cpu_ms: float


@dataclass(frozen=True)
class FrameLoop:
    """Frames for a bare loop: JPEG and bounding boxes of motion, the folder of the model, and the pipeline."""

    frames: Sequence[tuple[bytes, tuple[Box, ...]]]
    folder: Path
    pipeline: PipelineConfig
    denoise: DenoiseKind = "none"

    def run(self, count: int, processes: int | None = None) -> FrameLoopFigures:
        """Process ``count`` frames in ``processes`` processes, by default one per core. Begin again after the last
        frame."""
        workers = processes or os.cpu_count() or 1
        context = multiprocessing.get_context("spawn")
        barrier, spent = context.Barrier(workers + 1), context.Queue()
        children = [
            context.Process(target=self._work, args=(range(number, count, workers), barrier, spent), daemon=True)
            for number in range(workers)
        ]
        for child in children:
            child.start()
        barrier.wait()
        started_s = time.perf_counter()
        cpu_s = sum(spent.get() for _ in children)
        took_s = time.perf_counter() - started_s
        for child in children:
            child.join()
        return FrameLoopFigures(round(count / took_s, 1), round(1000 * cpu_s / count, 2))

    def _work(self, numbers: range, barrier: Barrier, spent: Queue[float]) -> None:
        cv2.setNumThreads(1)
        job, clean = FrameJob(self.folder, self.pipeline), denoiser(self.denoise).denoise
        for number in numbers[:WARM_UP_FRAMES]:
            job.detections(*self.frames[number % len(self.frames)], clean)
        barrier.wait()
        before_s = time.process_time()
        for number in numbers:
            job.detections(*self.frames[number % len(self.frames)], clean)
        spent.put(time.process_time() - before_s)
