"""The bare loop: processes that only decode, resize and infer, without Kafka. The bare loop's speed is the upper
bound for every pipeline."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from unittest.mock import patch

import cv2

from benchmarks.peers.framejob import FrameJob
from deploy.local.stack import ONE_THREAD
from ingest.contract.records import Box
from ingest.site import PipelineConfig
from stream.prepare.denoise import DenoiseKind, denoiser

KEPT_MEMORY = {"MALLOC_TRIM_THRESHOLD_": str(256 * 1024**2), "MALLOC_MMAP_THRESHOLD_": str(32 * 1024**2)}
"""Environment variables with which glibc keeps the memory of freed pictures. By default, the main thread of a process
returns it to the system after each frame, which costs 0.5 ms of page faults. The threads of the systems keep it."""
WARM_UP_FRAMES = 20
START_S = 90.0
"""Maximum time in which all processes load the model and warm up, in seconds."""
LOOP_S = 300.0
"""Maximum time of the measured frames, in seconds."""


@dataclass(frozen=True)
class FrameLoopFigures:
    """Frames per second of a loop that only decodes, resizes and infers, and its CPU time in ms per frame."""

    fps: float
    cpu_ms: float


@dataclass(frozen=True)
class FrameLoop:
    """Frames for a bare loop: JPEG and bounding boxes of motion, the folder of the model, and the pipeline."""

    frames: Sequence[tuple[bytes, tuple[Box, ...]]]
    folder: Path
    pipeline: PipelineConfig
    denoise: DenoiseKind = "none"

    def run(self, count: int, processes: int) -> FrameLoopFigures:
        """Process ``count`` frames in ``processes`` processes. After the last frame, begin again with the first
        frame.

        Raise BrokenBarrierError if a process cannot start, and queue.Empty if a process ends before its last frame.
        """
        context = multiprocessing.get_context("spawn")
        barrier, spent = context.Barrier(processes + 1, timeout=START_S), context.Queue()
        children = [
            context.Process(target=self._work, args=(range(number, count, processes), barrier, spent), daemon=True)
            for number in range(processes)
        ]
        with patch.dict(os.environ, {**ONE_THREAD, **KEPT_MEMORY}):  # new processes inherit it
            for child in children:
                child.start()
        try:
            barrier.wait()
            started_s = time.perf_counter()
            cpu_s = sum(spent.get(timeout=LOOP_S) for _ in children)
            took_s = time.perf_counter() - started_s
        finally:
            for child in children:
                child.terminate()
                child.join()
        return FrameLoopFigures(round(count / took_s, 1), round(1000 * cpu_s / count, 2))

    def _work(self, numbers: range, barrier: Barrier, spent: Queue[float]) -> None:
        try:
            cv2.setNumThreads(1)
            job, clean = FrameJob(self.folder, self.pipeline), denoiser(self.denoise).denoise
            for number in numbers[:WARM_UP_FRAMES]:
                job.detections(*self.frames[number % len(self.frames)], clean)
        except Exception:
            barrier.abort()
            raise
        barrier.wait()
        before_s = time.process_time()
        for number in numbers:
            job.detections(*self.frames[number % len(self.frames)], clean)
        spent.put(time.process_time() - before_s)
