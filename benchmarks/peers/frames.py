"""Measurement of one system that classifies frames: start, burst, fixed rate, memory."""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from benchmarks.peers.jobs import MOTION
from benchmarks.peers.load import LoadRecord, collecting, delete_topics, holding, pace
from benchmarks.peers.systems import BROKER, FrameSystem, failure, pids_of
from benchmarks.peers.usage import DRIVER, CpuMeter, moved_bytes, pss_mb, stored_bytes
from benchmarks.pipeline import PipelineCase, bare_loop, frame_record
from deploy.local.demo.latencies import percentiles_ms
from deploy.local.kafka.broker import Broker
from deploy.local.supervisor import Supervisor
from ingest.contract import headers as h
from ingest.contract.codec import decode
from ingest.contract.records import Result
from ingest.contract.topics import FRAMES, RESULTS
from ingest.kafka.kafkalog import KafkaLog
from ingest.kafka.settings import KafkaSettings
from ingest.runtime.clock import Deadline
from ingest.runtime.cpus import cpu_count

WARM_UP_FRAMES = 160
START_S = 90.0
"""Maximum time from the start of a system's processes to the results of the first frames, in seconds."""
RESULTS_S = 300.0
"""Maximum time of a burst, in seconds."""
IDLE_AFTER_S = 6.0
"""Time without load before the burst, in seconds. Sightline's engine node times batch sizes five seconds after it has
opened a model."""
IDLE_SHARE = 0.15
"""The burst begins once the system's processes together take less than this share of one core."""
SETTLE_SHARE = 20
"""The first twentieth of the frames at a fixed rate does not count, because it finds caches cold."""

Step = Callable[[str], None]
"""Shows the present step of a measurement."""


@dataclass(frozen=True)
class FrameLoads:
    """Number of frames of a burst, number of frames that are sent at a fixed rate, and this rate in frames per
    second."""

    burst: int
    paced: int
    rate: float


class FrameBench:
    """One system on topics of its own."""

    def __init__(self, broker: Broker, case: PipelineCase, system: FrameSystem, partitions: int) -> None:
        self._broker, self._case, self._system, self._partitions = broker, case, system, partitions
        self._settings = KafkaSettings(bootstrap=broker.bootstrap, prefix=f"peers-{uuid.uuid4().hex[:8]}.")
        self._epochs = count(1)

    async def measure(self, loads: FrameLoads, step: Step) -> dict[str, Any]:
        """Start the system, measure it, stop it, and return the figures."""
        await self._system.prepare(self._case, self._settings, self._partitions)
        try:
            with tempfile.TemporaryDirectory() as folder:
                step("start")
                async with self._running(Path(folder)) as (supervisor, first_result_s):
                    step("burst")
                    figures = {"first_result_s": first_result_s, **await self._burst(supervisor, loads.burst)}
                    if loads.paced:
                        step(f"{loads.rate:g} frames/s")
                        figures |= await self._paced(supervisor, loads)
                    memory = {name: pss_mb(pid) for name, pid in pids_of(supervisor, self._broker).items()}
        finally:
            await delete_topics(self._settings)
        broker_mb = memory.pop(BROKER)
        return {**figures, "pss_mb": round(sum(memory.values()), 1), "broker_pss_mb": broker_mb, "pss": memory}

    @contextlib.asynccontextmanager
    async def _running(self, folder: Path) -> AsyncIterator[tuple[Supervisor, float]]:
        """Run the system's processes, and yield them with the time from their start to the first result, in s."""
        supervisor = Supervisor(self._system.specs(self._case, self._settings, folder), folder)
        async with collecting(self._settings, RESULTS, self._partitions, header=h.FRAMES, prompt=True) as arrivals:
            async with holding(self._settings, FRAMES, self._records(WARM_UP_FRAMES)) as release:
                await release()
            started_s = time.perf_counter()
            async with supervisor:
                failed = partial(failure, supervisor)
                await arrivals.wait(WARM_UP_FRAMES, START_S, failed)
                first_s = min(arrivals.at_s.values()) - started_s
                await self._until_shared()
                async with holding(self._settings, FRAMES, self._records(WARM_UP_FRAMES)) as release:
                    await release()
                    await arrivals.wait(2 * WARM_UP_FRAMES, START_S, failed)
                await self._until_idle(supervisor)
                yield supervisor, round(first_s, 2)
                assert not any(supervisor.restarts().values()), failed()

    async def _until_shared(self) -> None:
        """Wait until each process that classifies has partitions."""
        group, members = self._system.members
        wanted = min(members, self._partitions)
        deadline = Deadline.after(START_S)
        async with KafkaLog(self._settings, "bench") as log:
            while sum(held > 0 for _, held in await log.members(group) or ()) < wanted:
                assert not deadline.passed, f"{self._system.name}: fewer than {wanted} processes have partitions"
                await asyncio.sleep(0.1)

    async def _until_idle(self, supervisor: Supervisor) -> None:
        """Wait until the system's processes have finished the work of their start."""
        pids = {name: pid for name, pid in pids_of(supervisor, self._broker).items() if name != BROKER}
        deadline = Deadline.after(START_S)
        await asyncio.sleep(IDLE_AFTER_S)
        busy = 1.0
        while busy > IDLE_SHARE:
            assert not deadline.passed, f"{self._system.name}: takes {busy:.0%} of a core without load"
            meter = CpuMeter(pids)
            await asyncio.sleep(1.0)
            busy = sum(ms / 1000 for name, ms in meter.ms_per(1).items() if name != DRIVER)

    async def _burst(self, supervisor: Supervisor, frames: int) -> dict[str, Any]:
        data = self._broker.folder / "data"
        async with (
            collecting(self._settings, RESULTS, self._partitions, header=h.FRAMES) as arrivals,
            holding(self._settings, FRAMES, self._records(frames)) as release,
        ):
            pids = pids_of(supervisor, self._broker)
            stored, moved, meter = stored_bytes(data), moved_bytes(pids[BROKER]), CpuMeter(pids)
            started_s = await release()
            await arrivals.wait(frames, RESULTS_S, partial(failure, supervisor))
            cpu_ms = meter.ms_per(frames)
            moved, stored = moved_bytes(pids[BROKER]) - moved, stored_bytes(data) - stored
        own = {name: ms for name, ms in cpu_ms.items() if name not in (BROKER, DRIVER)}
        return {
            "fps": round(frames / (max(arrivals.at_s.values()) - started_s), 1),
            "cpu_ms": round(sum(own.values()), 2),
            "broker_cpu_ms": round(cpu_ms[BROKER], 2),
            "broker_stored_kb": round(stored / frames / 1e3, 2),
            "broker_moved_kb": round(moved / frames / 1e3, 1),
            "detections": sum(map(self._found, arrivals.values)),
            "repeats": arrivals.repeats,
            "cpu": {name: round(ms, 3) for name, ms in cpu_ms.items()},
        }

    async def _paced(self, supervisor: Supervisor, loads: FrameLoads) -> dict[str, Any]:
        async with collecting(self._settings, RESULTS, self._partitions, header=h.FRAMES, prompt=True) as arrivals:
            meter = CpuMeter(pids_of(supervisor, self._broker))
            records = self._records(loads.paced, 1.0 / loads.rate)
            sent_s = await pace(self._settings, FRAMES, records, loads.rate)
            await arrivals.wait(loads.paced, RESULTS_S, partial(failure, supervisor))
            cpu_ms = meter.ms_per(loads.paced)
        counted = list(sent_s)[loads.paced // SETTLE_SHARE :]
        latencies = percentiles_ms(1000 * (arrivals.at_s[name] - sent_s[name]) for name in counted)
        return {
            "rate": loads.rate,
            **{f"{name}_ms": value for name, value in latencies.items()},
            "paced_cpu_ms": round(sum(cpu_ms.values()) - cpu_ms[BROKER] - cpu_ms[DRIVER], 2),
        }

    def _records(self, frames: int, interval_s: float = 0.0) -> list[LoadRecord]:
        """Return the records of frames that are captured ``interval_s`` seconds after one another from now on."""
        epoch = next(self._epochs)
        return [self._record(number, epoch, number * interval_s) for number in range(frames)]

    def _record(self, number: int, epoch: int, in_s: float) -> LoadRecord:
        partition, camera, value, headers = frame_record(self._case, number, epoch, self._partitions, in_s)
        name = headers[h.FRAMES]
        if self._system.program:  # a peer gets the JPEG itself, which is easier to read than our record
            picture = self._case.pictures[number % len(self._case.pictures)]
            value, headers = picture.jpeg, {h.FRAMES: name, MOTION: json.dumps(picture.motion).encode()}
        return LoadRecord(partition, camera.encode(), value, list(headers.items()), name)

    def _found(self, value: bytes) -> int:
        if self._system.program:
            return len(json.loads(value)["detections"])
        return len(decode(Result, value).detections)


def measure_bare(case: PipelineCase, frames: int, *, denoise: bool) -> dict[str, Any]:
    """Return the figures of the bare loop."""
    figures = bare_loop(case, "auto" if denoise else "none").run(frames, cpu_count())
    return {"fps": figures.fps, "cpu_ms": figures.cpu_ms}
