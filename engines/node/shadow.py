"""Shadow mode: candidate models classify a share of the frames that served models have classified, for comparison."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from prometheus_client import CollectorRegistry

from engines.exceptions import PipelineUnknown
from engines.metrics import NodeMetrics
from engines.node.jobs import ItemTask
from engines.node.pipelines import LiveModels
from engines.node.scheduler import MergedBatch
from engines.node.wanted import ModelSource
from engines.shadow.compare import compare, is_sampled
from ingest.contract.codec import encode
from ingest.contract.records import Detection, ShadowRecord
from ingest.contract.topics import SHADOW
from ingest.kafka.log import Outgoing
from ingest.runtime import logs
from ingest.runtime.clock import Clock, SystemClock
from ingest.site import PipelineConfig

_log = logs.get("engines.node.shadow")

QUEUED_FRAMES = 32
"""Maximum number of frames that wait for candidate models. Frames that come while ``QUEUED_FRAMES`` frames wait are
skipped."""
QUEUED_BYTES = 32 * 1024 * 1024
"""Maximum total size in bytes of the pixels that wait for candidate models."""
IDLE_POLL_S = 0.02
"""Time in s between two checks whether the node is idle. The node checks only while frames wait for a candidate."""
FAILURES = 3
"""A candidate model is switched off after this number of failed frames in a row. One failure is not enough, because
the frame itself may be faulty."""
LOWEST_PRIORITY = 19
"""Nice value of the candidates' threads. Threads with the lowest priority leave the processor to all other threads
first."""


@dataclass(frozen=True, slots=True)
class _ShadowFrame:
    """A frame that waits for the candidate model, and the served model's detections in this frame."""

    task: ItemTask
    pipeline: str
    served: str
    detections: list[Detection]

    @property
    def nbytes(self) -> int:
        return self.task.nbytes


class ShadowRunner:
    """Runs the candidate models that pipelines name in their setting ``shadow``.

    A candidate gets copies of frames that the served model has classified, one at a time, and only while ``busy()``
    is false. A candidate computes in threads of the lowest priority, and a candidate's errors do not affect results.
    Frames are skipped if the node has no idle time. Call all methods on one event loop. ``produce`` writes a record
    to Kafka, like ``Log.produce``.
    """

    def __init__(
        self,
        source: ModelSource,
        produce: Callable[[Outgoing], Awaitable[Any]],
        metrics: NodeMetrics,
        clock: Clock | None = None,
    ) -> None:
        self._produce = produce
        self._metrics = metrics
        self._clock = clock or SystemClock()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="shadow", initializer=lower_priority)
        self._models = LiveModels(source, NodeMetrics(CollectorRegistry()), self._clock.monotonic, self._pool)
        self._models.on_refused = self._on_refused
        self._pipelines: dict[str, PipelineConfig] = {}
        self._off: set[str] = set()
        """Names of the pipelines whose candidate was switched off."""
        self._failures: Counter[str] = Counter()
        self._frames: deque[_ShadowFrame] = deque()
        self._nbytes = 0
        self._offered = asyncio.Event()
        self._ends: deque[ShadowRecord] = deque()
        self._reasons: dict[str, tuple[str, str]] = {}
        """Maps a pipeline's name to the shadow model that was last reported as switched off, and the reason."""
        self.busy: Callable[[], bool] = lambda: False

    def want(self, pipelines: Iterable[PipelineConfig]) -> None:
        """Set the pipelines whose candidates ``run`` loads.

        If a candidate was switched off and its pipeline now names another candidate, run the other candidate.
        """
        before, self._pipelines = self._pipelines, {each.name: each for each in pipelines if each.shadow}
        for name, old in before.items():
            if name not in self._pipelines or self._pipelines[name].shadow != old.shadow:
                self._forget_failures(name)
        self._load()

    def offer(self, merged: MergedBatch, served: str) -> None:
        """Queue the sampled frames of a batch that the model ``served`` has classified. Return at once."""
        pipeline = self._pipelines.get(merged.pipeline)
        if pipeline is None or not self._runs(pipeline):
            return
        for task in merged.tasks:
            if task.detections is None or not is_sampled(task.item.id, pipeline.shadow_share):
                continue
            frame = b"" if task.item.cropped else task.frame
            own = replace(task, frame=frame, detections=None, error=None)
            if len(self._frames) >= QUEUED_FRAMES or self._nbytes + own.nbytes > QUEUED_BYTES:
                self._count(pipeline.name, "skipped")
                continue
            # Copies, because the images of a task are views of the whole record, which must not stay in memory.
            own.images = [image.copy() for image in task.images]
            self._frames.append(_ShadowFrame(own, pipeline.name, task.model or served, task.detections))
            self._nbytes += own.nbytes
            self._offered.set()

    async def run(self, pause_s: float) -> None:
        """Load and run candidates for ever. Look for changed model files every ``pause_s`` seconds."""
        following = asyncio.create_task(self._models.run(pause_s))
        try:
            while True:
                await self._offered.wait()
                self._offered.clear()
                while self._ends or self._frames:
                    await self._step()
        finally:
            following.cancel()
            await asyncio.wait({following})

    async def close(self) -> None:
        """Release the candidates. Abandon the frame that a candidate is computing at this moment."""
        await self._models.close()
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _step(self) -> None:
        if self._ends:
            await self._write(self._ends.popleft())
        elif self.busy():
            await asyncio.sleep(IDLE_POLL_S)
        else:
            frame = self._frames.popleft()
            self._nbytes -= frame.nbytes
            await self._classify(frame)

    async def _classify(self, frame: _ShadowFrame) -> None:
        task, loop = frame.task, asyncio.get_running_loop()
        pipeline = self._pipelines.get(frame.pipeline)
        if pipeline is None or not self._runs(pipeline):
            return
        try:
            async with self._models.use(frame.pipeline) as model:
                candidate = model.model.manifest.id
                await loop.run_in_executor(self._pool, model.classify, MergedBatch(frame.pipeline, [task]))
            compared = compare(frame.detections, task.detections or ())
        except PipelineUnknown:  # the candidate was removed meanwhile
            self._count(frame.pipeline, "skipped")
            return
        except Exception as error:  # a lost device, a full memory: a further attempt would fail, too
            self._count(frame.pipeline, "failed")
            self._switch_off(pipeline, str(error) or repr(error))
            return
        if task.detections is None:
            self._count(frame.pipeline, "failed")
            self._failures[frame.pipeline] += 1
            if self._failures[frame.pipeline] == FAILURES:
                self._switch_off(pipeline, f"{FAILURES} frames in a row failed, the last with: {task.error}")
            return
        self._failures.pop(frame.pipeline, None)
        self._count(frame.pipeline, "differ" if compared.differences else "agree")
        item = task.item
        await self._write(
            ShadowRecord(
                pipeline=frame.pipeline,
                served=frame.served,
                candidate=candidate,
                written_ns=self._clock.now_ns(),
                camera=item.camera,
                epoch=item.epoch,
                seq=item.seq,
                captured_ns=item.captured_ns,
                source=item.source,
                agreed=dict(compared.agreed),
                differences=compared.differences,
            )
        )

    def _runs(self, pipeline: PipelineConfig) -> bool:
        """Return whether the candidate that a pipeline names is open.

        While a new candidate loads, or if the new candidate cannot be loaded, the previous candidate is still open.
        """
        return pipeline.name not in self._off and self._models.served_version(pipeline.name) == pipeline.shadow

    async def _write(self, record: ShadowRecord) -> None:
        """Write a record. A record that cannot be written is lost, because a failed write must not stop the node."""
        try:
            await self._produce(Outgoing(SHADOW, 0, encode(record), key=(record.camera or "").encode()))
        except Exception as error:
            _log.warning("shadow_comparison_not_written", pipeline=record.pipeline, error=repr(error))

    def _switch_off(self, pipeline: PipelineConfig, reason: str) -> None:
        """Stop the candidate of a pipeline until the pipeline names another candidate."""
        self._off.add(pipeline.name)
        self._load()
        self._end(pipeline, reason)

    def _on_refused(self, name: str, reason: str) -> None:
        if pipeline := self._pipelines.get(name):
            self._end(pipeline, reason)

    def _end(self, pipeline: PipelineConfig, reason: str) -> None:
        """Report why a candidate does not run.

        If a candidate fails again for the same reason, do not report the reason again.
        """
        self._metrics.shadow_off.labels(pipeline.name).set(1)
        if self._reasons.get(pipeline.name) == (pipeline.shadow, reason):
            return
        self._reasons[pipeline.name] = pipeline.shadow, reason
        _log.error("shadow_switched_off", pipeline=pipeline.name, candidate=pipeline.shadow, error=reason)
        now_ns = self._clock.now_ns()
        self._ends.append(
            ShadowRecord(pipeline=pipeline.name, candidate=pipeline.shadow, written_ns=now_ns, off=reason[:2000])
        )
        self._offered.set()

    def _forget_failures(self, name: str) -> None:
        self._metrics.shadow_off.labels(name).set(0)
        self._off.discard(name)
        self._failures.pop(name, None)
        self._reasons.pop(name, None)

    def _load(self) -> None:
        wanted = [pipeline for name, pipeline in self._pipelines.items() if name not in self._off]
        self._models.want(
            pipeline.model_copy(update={"model": pipeline.shadow, "lighter": "", "then": ()}) for pipeline in wanted
        )

    def _count(self, pipeline: str, outcome: str) -> None:
        self._metrics.shadow_frames.labels(pipeline, outcome).inc()
        if outcome in ("agree", "differ"):
            self._metrics.shadow_off.labels(pipeline).set(0)


def lower_priority() -> None:
    """Give the calling thread, and the threads that it starts, the lowest priority.

    On systems other than Linux, do nothing.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOWEST_PRIORITY)
