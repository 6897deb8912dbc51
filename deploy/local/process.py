"""Processes known by their id: ours or another program's, which both can be signalled, awaited and recognised."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ingest.runtime.clock import Deadline
from ingest.runtime.tether import tethered

_START_TIME_FIELD = 19
"""Where /proc/PID/stat holds the start time, counted after the name in brackets; proc(5)."""


@dataclass(frozen=True, slots=True)
class Process:
    """One process. ``started`` (clock ticks since boot) tells it from a later one with the same id."""

    pid: int
    started: int

    @property
    def alive(self) -> bool:
        """Tell whether it still runs, with any of its threads. Reap it if it was our child."""
        return not self.wait(Deadline.after(0.0))

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, unless it is gone."""
        if self.alive:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def wait(self, deadline: Deadline) -> bool:
        """Wait until it is gone. Return whether it is, by the deadline. Reap it if it was our child."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return True
        try:
            gone = self._started_at() != self.started or _ended(descriptor, deadline)
        finally:
            os.close(descriptor)
        if gone:
            with suppress(ChildProcessError):
                os.waitpid(self.pid, os.WNOHANG)
        return gone

    def _started_at(self) -> int | None:
        found = find(self.pid)
        return found.started if found else None

    def end(self, deadline: Deadline) -> bool:
        """Send SIGTERM, and SIGKILL when the deadline passes. Return whether SIGTERM was enough."""
        self.signal(signal.SIGTERM)
        if self.wait(deadline):
            return True
        self.signal(signal.SIGKILL)
        self.wait(Deadline.after(_KILL_S))
        return False


_KILL_S = 10.0
"""A killed process is gone at once, unless the kernel is still writing for it."""


def find(pid: int) -> Process | None:
    """Return the process with this id, None if there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return Process(pid, int(stat.rpartition(")")[2].split()[_START_TIME_FIELD]))


def peak_memory_mb(pid: int) -> float:
    """Return the most memory that a process has had resident so far, in MB; 0.0 once it is gone. VmHWM of proc(5)."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    told_kib = next(
        (int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0
    )  # a zombie has no such line
    return told_kib * 1024 / 1e6


def _ended(descriptor: int, deadline: Deadline) -> bool:
    """A pidfd is readable once the last thread has ended; /proc calls a process dead when its first one has."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(deadline.left * 1000))


def spawn(command: Sequence[str], env: Mapping[str, str], output: Path, *, detach: bool = False) -> Process:
    """Start a process in a session of its own, its output appended to a file, and return it.

    It dies with this process unless ``detach``. May be called from any thread.
    """
    argv = list(command) if detach else tethered(command)
    pid = _lasting_thread().submit(_spawn, argv, dict(env), output).result()
    found = find(pid)
    return found or Process(pid, 0)


@cache
def _lasting_thread() -> ThreadPoolExecutor:
    """One thread that starts all children: a child tethered to a worker thread would die with that."""
    return ThreadPoolExecutor(1, "spawn")


def _spawn(argv: list[str], env: dict[str, str], output: Path) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(output), flags, 0o644),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    return os.posix_spawnp(argv[0], argv, env, file_actions=actions, setsid=True)
