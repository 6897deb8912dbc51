"""Run the services of a stack as child processes, restart those that fail, stop them in order."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from deploy.local.exceptions import StackError
from ingest.runtime import logs
from ingest.runtime.backoff import STEADY_S, Backoff
from ingest.runtime.clock import Clock, SystemClock
from ingest.runtime.tether import tethered

STOP_TIMEOUT_S = 10.0
"""A service finishes its batch, its transaction and its commit: a second, or a few when the machine is busy."""

_log = logs.get("deploy.supervisor")


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """One service: its name, its command, and what it needs in its environment beside this process's own."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    stop_timeout_s: float = STOP_TIMEOUT_S


class Supervisor:
    """Keeps services running, each with a log file of its own in ``folder``.

    A service that ends with 0 has finished and is left alone; any other end is a failure and it is started again,
    after a growing pause. Services run in sessions of their own, so that Ctrl-C reaches this process only, and die
    with it. What a service leaves behind in its process group is killed when it ends. Use it from one event loop,
    in a thread that lasts as long as the services.
    """

    def __init__(
        self, specs: Sequence[ServiceSpec], folder: Path, *, seed: int | None = None, clock: Clock | None = None
    ) -> None:
        self.folder = folder
        self._random = random.Random(seed)
        self._clock = clock or SystemClock()
        self._specs = list(specs)
        self._children: dict[str, _Child] = {}

    async def start(self) -> None:
        """Start the services in their order. Raise StackError if two have the same name."""
        for spec in self._specs:
            await self.add(spec)

    async def add(self, spec: ServiceSpec) -> None:
        """Start one more service. Raise StackError if there is one of that name."""
        if spec.name in self._children:
            raise StackError(f"two services are called {spec.name}: give each a name of its own")
        self.folder.mkdir(parents=True, exist_ok=True)
        child = _Child(spec, self.folder / f"{spec.name}.log", self._random, self._clock)
        self._children[spec.name] = child
        await child.start()

    def pid(self, name: str) -> int | None:
        """Return the process id of a service, None while it is down."""
        return self._child(name).pid

    def restarts(self) -> dict[str, int]:
        """Return, by name, how many times each service was started again."""
        return {name: child.restarts for name, child in self._children.items()}

    @property
    def alive(self) -> frozenset[str]:
        """The names of the services that have a running process now."""
        return frozenset(name for name, child in self._children.items() if child.pid is not None)

    async def stop_one(self, name: str, timeout_s: float | None = None) -> bool:
        """Send SIGTERM to one service, and SIGKILL after the timeout. Return whether SIGTERM was enough."""
        return await self._child(name).stop(timeout_s)

    async def stop(self, order: Sequence[str] | None = None) -> bool:
        """Stop the services one after another, by default in the reverse of their start.

        Those that ``order`` leaves out come last. Return whether all of them stopped by themselves.
        """
        wanted = list(order or [])
        wanted += [name for name in reversed(self._children) if name not in wanted]
        return all([await self.stop_one(name) for name in wanted])

    async def __aenter__(self) -> Supervisor:
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def _child(self, name: str) -> _Child:
        if name not in self._children:
            raise StackError(f"no service is called {name!r}: there are {', '.join(self._children) or 'none'}")
        return self._children[name]


class _Child:
    """One service and the task that keeps it running."""

    def __init__(self, spec: ServiceSpec, log: Path, chances: random.Random, clock: Clock) -> None:
        self._spec, self._log, self._random, self._clock = spec, log, chances, clock
        self._backoff = Backoff()
        self._stopping = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._started_s = 0.0
        self._starts = 0

    @property
    def pid(self) -> int | None:
        running = self._process is not None and self._process.returncode is None
        return self._process.pid if self._process and running else None

    @property
    def restarts(self) -> int:
        return max(0, self._starts - 1)

    async def start(self) -> None:
        self._process = await self._spawn()
        self._task = asyncio.create_task(self._keep(self._process), name=f"keep {self._spec.name}")

    async def stop(self, timeout_s: float | None) -> bool:
        if self._task is None:
            return True
        self._stopping.set()
        self._signal(signal.SIGTERM)
        allowed_s = self._spec.stop_timeout_s if timeout_s is None else timeout_s
        done, _ = await asyncio.wait({self._task}, timeout=allowed_s)
        if not done:
            _log.warning("killed", service=self._spec.name, after_s=allowed_s)
            self._signal(signal.SIGKILL)
        await self._task
        return bool(done)

    async def _keep(self, process: asyncio.subprocess.Process) -> None:
        while await self._outcome(process) != 0 and not self._stopping.is_set():
            successor = await self._successor(process)
            if successor is None:
                return
            self._process = process = successor
            if self._stopping.is_set():  # told to stop while it was being started
                self._signal(signal.SIGTERM)

    async def _successor(self, process: asyncio.subprocess.Process) -> asyncio.subprocess.Process | None:
        """Start the service again after a pause, and after another when that fails. None when told to stop."""
        while not await self._pause(process):
            try:
                return await self._spawn()
            except OSError as error:  # no memory, no more files, a full disk: it passes, or somebody reads this
                _log.warning("not started", service=self._spec.name, error=str(error))
        return None

    async def _outcome(self, process: asyncio.subprocess.Process) -> int:
        """Wait for the end of one run and return its code; note on the way that it has become steady."""
        with suppress(TimeoutError):
            return self._swept(await asyncio.wait_for(process.wait(), STEADY_S), process)
        length_s = self._backoff.steady(self._started_s)
        if length_s is not None:
            _log.info("back", service=self._spec.name, pid=process.pid, out_for_s=round(length_s, 2))
        return self._swept(await process.wait(), process)

    async def _pause(self, process: asyncio.subprocess.Process) -> bool:
        """Wait before the next start. Return whether the wait was cut short by a stop."""
        first = not self._backoff.out
        wait_s = self._backoff.failed(self._clock.monotonic(), self._random.random())
        if first:
            _log.warning(
                "gone", service=self._spec.name, pid=process.pid, code=process.returncode, log=str(self._log)
            )
        with suppress(TimeoutError):
            return await asyncio.wait_for(self._stopping.wait(), wait_s)
        return False

    async def _spawn(self) -> asyncio.subprocess.Process:
        self._starts += 1
        self._started_s = self._clock.monotonic()
        with self._log.open("ab") as output:
            return await asyncio.create_subprocess_exec(
                *tethered(self._spec.argv),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
                env={**os.environ, **self._spec.env},
                start_new_session=True,
            )

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)

    def _swept(self, code: int, process: asyncio.subprocess.Process) -> int:
        """Kill what the service left in its process group: it would hold a camera or a port against its successor."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        return code
