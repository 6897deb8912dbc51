"""Supervisor of a stack's services: starts the services as child processes, restarts failed services, and stops all
services in order."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from deploy.local.exceptions import StackError
from ingest.runtime import logs
from ingest.runtime.backoff import STEADY_S, Backoff
from ingest.runtime.clock import SystemClock
from ingest.runtime.tether import tethered

STOP_TIMEOUT_S = 10.0
"""Time limit for a clean stop of a service, in seconds. A service needs one to a few seconds to finish its last
batch, its transaction and its offset commit."""

_log = logs.get("deploy.supervisor")


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """Name, command, additional environment variables and stop timeout of a service."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    stop_timeout_s: float = STOP_TIMEOUT_S


class Supervisor:
    """Runner of services as child processes, each with its own log file in ``folder``.

    A service that exits with status 0 has finished and is not restarted. A service that exits with another status has
    failed: the supervisor restarts the service after a pause, which grows with each failure. Each service runs in its
    own session, so that Ctrl-C reaches only the supervisor. The kernel kills every service when the supervisor's
    process dies. When the main process of a service ends, the supervisor kills the other processes of its process
    group. Only one event loop may use a supervisor, and the thread of that loop must live as long as the services.
    """

    def __init__(self, specs: Sequence[ServiceSpec], folder: Path, *, seed: int | None = None) -> None:
        self.folder = folder
        self._random = random.Random(seed)
        self._specs = list(specs)
        self._children: dict[str, _Child] = {}

    async def start(self) -> None:
        """Start all services in the order in which they were given.

        Raise StackError if two services have the same name.
        """
        for spec in self._specs:
            await self.add(spec)

    async def add(self, spec: ServiceSpec) -> None:
        """Start one additional service. Raise StackError if another service has the same name."""
        if spec.name in self._children:
            raise StackError(f"two services are called {spec.name}: give each a name of its own")
        self.folder.mkdir(parents=True, exist_ok=True)
        child = _Child(spec, self.folder / f"{spec.name}.log", self._random)
        self._children[spec.name] = child
        await child.start()

    def pid(self, name: str) -> int | None:
        """Return the process id of a service, or None if the service does not run."""
        return self._child(name).pid

    def restarts(self) -> dict[str, int]:
        """Return how many times each service was restarted, by service name."""
        return {name: child.restarts for name, child in self._children.items()}

    @property
    def alive(self) -> frozenset[str]:
        """Return the names of the services whose process is running."""
        return frozenset(name for name, child in self._children.items() if child.pid is not None)

    async def stop_one(self, name: str, timeout_s: float | None = None) -> bool:
        """Send SIGTERM to one service, and SIGKILL if the service still runs after the timeout.

        Return whether the service ended without SIGKILL.
        """
        return await self._child(name).stop(timeout_s)

    async def restart(self, name: str, timeout_s: float | None = None) -> bool:
        """Stop one service with ``stop_one``, and start the service again.

        Return whether the service ended without SIGKILL.
        """
        child = self._child(name)
        clean = await child.stop(timeout_s)
        await child.start()
        return clean

    async def stop(self, order: Sequence[str] | None = None) -> bool:
        """Stop the services one after another, by default in reverse order of their start.

        Services that are missing in ``order`` stop after the services in ``order``. Return whether all services ended
        without SIGKILL.
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

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def _child(self, name: str) -> _Child:
        if name not in self._children:
            raise StackError(f"no service is called {name!r}: expected one of {', '.join(self._children) or 'none'}")
        return self._children[name]


class _Child:
    """One service, its process, and the task that restarts the process after a failure."""

    def __init__(self, spec: ServiceSpec, log: Path, chances: random.Random) -> None:
        self._spec, self._log, self._random, self._clock = spec, log, chances, SystemClock()
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
        self._stopping.clear()
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
            _log.warning("service_killed", service=self._spec.name, after_s=allowed_s)
            self._signal(signal.SIGKILL)
        await self._task
        return bool(done)

    async def _keep(self, process: asyncio.subprocess.Process) -> None:
        while await self._outcome(process) != 0 and not self._stopping.is_set():
            successor = await self._successor(process)
            if successor is None:
                return
            self._process = process = successor
            if self._stopping.is_set():  # stopped during its start
                self._signal(signal.SIGTERM)

    async def _successor(self, process: asyncio.subprocess.Process) -> asyncio.subprocess.Process | None:
        """Restart the service after a pause, and return the new process.

        If the process cannot be started, pause and retry. Return None if the service is asked to stop.
        """
        while not await self._pause(process):
            try:
                return await self._spawn()
            except OSError as error:  # out of memory, files or disk space
                _log.warning("service_not_started", service=self._spec.name, error=str(error))
        return None

    async def _outcome(self, process: asyncio.subprocess.Process) -> int:
        """Wait until the process ends, and return its exit status.

        If the process has run for ``STEADY_S`` after a failure, log that the service has recovered.
        """
        with suppress(TimeoutError):
            return self._kill_group_of(await asyncio.wait_for(process.wait(), STEADY_S), process)
        length_s = self._backoff.steady(self._started_s)
        if length_s is not None:
            _log.info("service_recovered", service=self._spec.name, pid=process.pid, down_s=round(length_s, 2))
        return self._kill_group_of(await process.wait(), process)

    async def _pause(self, process: asyncio.subprocess.Process) -> bool:
        """Wait for the back-off pause before the next start of the service.

        Return whether a stop request interrupted the pause.
        """
        first = not self._backoff.out
        wait_s = self._backoff.failed(self._clock.monotonic(), self._random.random())
        if first:
            _log.warning(
                "service_failed",
                service=self._spec.name,
                pid=process.pid,
                code=process.returncode,
                log=str(self._log),
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

    def _kill_group_of(self, code: int, process: asyncio.subprocess.Process) -> int:
        """Kill all processes that remain in the process group of an ended service.

        A remaining process could hold a camera or a port that the restarted service needs.
        """
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        return code
