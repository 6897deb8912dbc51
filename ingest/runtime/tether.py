"""Run a command that dies with its parent: ``python tether.py PARENT_PID command …``.

The program asks the kernel to send SIGKILL when its parent ends (prctl(2), PR_SET_PDEATHSIG). Then the program
replaces itself by the command and keeps its process id. The tether is a separate program because code between fork
and exec is unsafe in a process with threads. This program imports nothing from Sightline, so that it starts in
milliseconds.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

PR_SET_PDEATHSIG = 1
"""Number of the prctl(2) option, from linux/prctl.h."""


def tethered(command: Sequence[str]) -> list[str]:
    """Return a command that runs ``command`` and dies with this process.

    Start the command from a thread that lives as long as this process: the kernel treats the starting thread as the
    parent.
    """
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), *command]


if __name__ == "__main__":
    parent, command = int(sys.argv[1]), sys.argv[2:]
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # the parent ended before prctl was called
        sys.exit(1)
    os.execvp(command[0], command)  # noqa: S606  (a list, never a shell)
