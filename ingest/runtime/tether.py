"""Run a command that the kernel kills when the parent process ends: ``python tether.py PARENT_PID command …``.

The program asks the kernel to send SIGKILL when its parent ends (prctl(2), PR_SET_PDEATHSIG). After the call of
prctl, the program replaces itself by the command and keeps its process id. The call of prctl is made by a separate
program, because Python code between fork and exec is unsafe in a process with threads. This program imports nothing
from Sightline, so that it starts in milliseconds.
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
    """Return the arguments of a process that runs ``command`` and is killed when the calling process ends.

    Start the returned command from a thread that lives as long as the calling process, because the kernel sends
    SIGKILL when the starting thread ends.
    """
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), *command]


if __name__ == "__main__":
    parent, command = int(sys.argv[1]), sys.argv[2:]
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # the parent ended before prctl was called
        sys.exit(1)
    os.execvp(command[0], command)  # noqa: S606  (a list, never a shell)
