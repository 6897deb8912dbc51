"""The processors that a process may use."""

from __future__ import annotations

import os


def cpu_count() -> int:
    """Return the number of processors that this process may use.

    A container or ``taskset`` may allow fewer processors than the machine has.
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
