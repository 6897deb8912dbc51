"""Faults of a running stack: SIGKILL, SIGSTOP and SIGTERM to one process, and the wait for its recovery."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import defaultdict
from collections.abc import Callable

import psutil

from benchmarks.chaos.judge import InjectedFault
from benchmarks.chaos.plan import BROKER, CAPTURE, PAUSE, STOP, TWICE, PlannedFault
from deploy.local.demo.run import RunningStack
from deploy.local.exceptions import BrokerFailed
from deploy.local.kafka.broker import Broker
from deploy.local.process import Process, find
from deploy.local.stack import AGENT
from ingest.runtime.clock import Deadline

BACK_S = 90.0
"""Maximum time until a disturbed process runs again, in seconds. The broker takes longest, because it has to load its
logs."""
STOP_S = 40.0
"""Maximum time of a clean stop, in seconds: longer than the longest pause of the broker, because a stopping process
may have to commit its offsets to a paused broker."""
_POLL_S = 0.05
_CAPTURE_MODULE = "edge_agent.camera.child"


class FaultInjector:
    """Causes faults in a stack and its broker. Only faults of different targets may overlap."""

    def __init__(self, running: RunningStack, broker: Broker, say: Callable[[str], None]) -> None:
        self._stack, self._figures, self._broker, self._say = running.stack, running.figures, broker, say
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self.injected: list[InjectedFault] = []

    async def run(self, faults: list[PlannedFault]) -> None:
        """Cause each fault at its planned time, and return when all faults have ended."""
        began_s = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for fault in faults:
                await asyncio.sleep(max(0.0, began_s + fault.at_s - time.monotonic()))
                group.create_task(self._inject(fault))

    async def _inject(self, fault: PlannedFault) -> None:
        async with self._turns[fault.target]:
            begin_ns, kills, problem = time.time_ns(), 0, ""
            try:
                kills = await (self._on_broker(fault) if fault.target == BROKER else self._on_process(fault))
            except (TimeoutError, BrokerFailed) as error:
                problem = str(error)
            self.injected.append(InjectedFault(fault, begin_ns, time.time_ns(), kills, problem))
        figures, took_s = self._figures, (time.time_ns() - begin_ns) / 1e9
        self._say(
            f"{fault.at_s:5.0f} s: {fault.kind} {fault.target}, {problem or 'ended'} after {took_s:.1f} s; "
            f"{figures.results} results, {len(figures.events)} events, {len(figures.alerts)} alerts"
        )

    async def _on_broker(self, fault: PlannedFault) -> int:
        """Disturb the broker, and return the number of kills.

        Raise BrokerFailed if the broker is down or does not start.
        """
        process = self._broker.process
        if process is None:
            raise BrokerFailed(
                "Kafka has been down since an earlier fault, and cannot be a target again",
                str(self._broker.folder),
                "",
            )
        if fault.kind == PAUSE:
            await _pause(process, fault.length_s)
            return 0
        kills = 0
        for _ in range(2 if fault.kind == TWICE else 1):
            clean = await asyncio.to_thread(self._broker.stop if fault.kind == STOP else self._broker.kill)
            kills += not clean
            await asyncio.sleep(fault.length_s)
            await asyncio.to_thread(self._broker.start, timeout_s=BACK_S)
        return kills

    async def _on_process(self, fault: PlannedFault) -> int:
        """Disturb a process, and return the number of kills."""
        process = await self._process(fault.target)
        if fault.kind == PAUSE:
            await _pause(process, fault.length_s)
            return 0
        if fault.kind == STOP:
            clean = await self._stack.restart(fault.target, STOP_S)
            await self._process(fault.target, other_than=process)
            return int(not clean)
        process.signal(signal.SIGKILL)
        successor = await self._process(fault.target, other_than=process)
        if fault.kind == TWICE:
            await asyncio.sleep(fault.length_s)
            successor.signal(signal.SIGKILL)
            await self._process(fault.target, other_than=successor)
        return 1 + (fault.kind == TWICE)

    async def _process(self, target: str, other_than: Process | None = None) -> Process:
        """Wait for a running process of ``target``, and return it. Raise TimeoutError."""
        deadline = Deadline.after(BACK_S)
        while not deadline.passed:
            pid = self._capture() if target == CAPTURE else self._stack.pid(target)
            found = find(pid) if pid else None
            if found and found != other_than:
                return found
            await asyncio.sleep(_POLL_S)
        raise TimeoutError(f"the service did not run again within {BACK_S:.0f} s")

    def _capture(self) -> int | None:
        """Return the process id of the newest capture process, or None if no capture process runs."""
        try:
            children = (
                psutil.Process(self._stack.pid(AGENT)).children(recursive=True) if self._stack.pid(AGENT) else []
            )
            captures = [child for child in children if _CAPTURE_MODULE in " ".join(child.cmdline())]
            return max(captures, key=lambda child: child.create_time()).pid if captures else None
        except psutil.Error:  # one of them has just ended
            return None


async def _pause(process: Process, seconds: float) -> None:
    process.signal(signal.SIGSTOP)
    try:
        await asyncio.sleep(seconds)
    finally:
        process.signal(signal.SIGCONT)
