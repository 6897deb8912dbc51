"""Run a command that dies with its parent: ``python tether.py PARENT_PID command …``.

It asks the kernel to send SIGKILL when the parent goes (prctl(2), PR_SET_PDEATHSIG), then becomes the command: the
process id stays. This is a program of its own because code between fork and exec is not safe in a process with
threads. It imports nothing of this project, so that it starts in milliseconds.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

PR_SET_PDEATHSIG = 1
"""linux/prctl.h"""


def tethered(command: Sequence[str]) -> list[str]:
    """Return the command that runs ``command`` and dies with this process.

    The kernel counts the thread that starts it as the parent: start it from a thread that lasts.
    """
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), *command]


if __name__ == "__main__":
    parent, command = int(sys.argv[1]), sys.argv[2:]
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it went before we could ask
        sys.exit(1)
    os.execvp(command[0], command)  # noqa: S606  (a list, never a shell)
