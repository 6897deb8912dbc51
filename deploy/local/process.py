"""Operating system processes, identified by process id: start, find, signal and await a process.

All functions except ``spawn`` accept any process, not only child processes.
"""

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
"""Index of a process's start time in /proc/PID/stat, counted from the first field after the command name in
parentheses (proc(5))."""


@dataclass(frozen=True, slots=True)
class Process:
    """One process.

    ``started`` is the start time in clock ticks since boot, and distinguishes the process from a later process with
    the same id.
    """

    pid: int
    started: int

    @property
    def alive(self) -> bool:
        """Return whether the process still has a running thread.

        Collect the exit status of an ended child, so that no zombie remains.
        """
        return not self.wait(Deadline.after(0.0))

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, unless the process has ended."""
        if self.alive:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def wait(self, deadline: Deadline) -> bool:
        """Wait until the process ends or the deadline passes.

        Return whether the process has ended. Collect the exit status of an ended child, so that no zombie remains.
        """
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return True
        try:
            poll = select.poll()  # a pidfd is readable once the last thread has ended; /proc shows the first one
            poll.register(descriptor, select.POLLIN)
            gone = find(self.pid) != self or bool(poll.poll(deadline.left * 1000))
        finally:
            os.close(descriptor)
        if gone:
            with suppress(ChildProcessError):
                os.waitpid(self.pid, os.WNOHANG)
        return gone

    def end(self, deadline: Deadline) -> bool:
        """Send SIGTERM, and SIGKILL if the process still runs after the deadline.

        Return whether the process ended without SIGKILL.
        """
        self.signal(signal.SIGTERM)
        if self.wait(deadline):
            return True
        self.signal(signal.SIGKILL)
        self.wait(Deadline.after(_KILL_S))
        return False


_KILL_S = 10.0
"""Maximum wait for a process to end after SIGKILL, in seconds. A process ends at once after SIGKILL unless the kernel
is still writing the process's data to disk."""


def find(pid: int) -> Process | None:
    """Return the process with this id, or None if there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return Process(pid, int(stat.rpartition(")")[2].split()[_START_TIME_FIELD]))


def spawn(command: Sequence[str], env: Mapping[str, str], output: Path, *, detach: bool = False) -> Process:
    """Start a process in a new session and return a handle to the process.

    Append the standard output and standard error of the process to the file ``output``. Without ``detach``, the
    kernel kills the process when the calling process dies. Any thread may call this function.
    """
    argv = list(command) if detach else tethered(command)
    pid = _lasting_thread().submit(_spawn, argv, dict(env), output).result()
    return find(pid) or Process(pid, 0)


@cache
def _lasting_thread() -> ThreadPoolExecutor:
    """Return the executor whose only thread starts all child processes.

    The kernel kills a child that was started without ``detach`` when the thread that started the child ends, so this
    thread never ends.
    """
    return ThreadPoolExecutor(1, "spawn")


def _spawn(argv: list[str], env: dict[str, str], output: Path) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(output), flags, 0o644),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    return os.posix_spawnp(argv[0], argv, env, file_actions=actions, setsid=True)
