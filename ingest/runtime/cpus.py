"""The number of processors that a process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path

_OWN_GROUP = Path("/proc/self/cgroup")
_GROUPS = Path("/sys/fs/cgroup")


def cpu_count(own_group: Path = _OWN_GROUP, groups: Path = _GROUPS) -> int:
    """Return the number of processors that this process may use: at least 1.

    Both limits of Linux count: the processors that the process may run on (``taskset``, the cpuset of a container),
    and the quota of processor time of its control groups, version 2 (``docker run --cpus``, a CPU limit of
    Kubernetes, ``CPUQuota`` of systemd), rounded up. ``own_group`` and ``groups`` are the kernel's files about the
    control groups.
    """
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(usable, _quota(own_group, groups))))


def _quota(own_group: Path, groups: Path) -> float:
    """Return the smallest quota of the process's control group and the groups around it, in processors; infinity if
    there is none."""
    try:
        lines = own_group.read_text().splitlines()
    except OSError:
        return math.inf  # not Linux, or hidden from the process
    own = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), "")
    inner = groups / own
    around = [folder for folder in (inner, *inner.parents) if folder.is_relative_to(groups)]
    return min((_quota_of(folder / "cpu.max") for folder in around), default=math.inf)


def _quota_of(file: Path) -> float:
    """Return the quota in a file ``cpu.max``, in processors; infinity for a missing file and for a file without a
    quota.

    The file has two numbers, the time in µs and the length of the period in µs, or ``max`` in place of the first."""
    try:
        time_us, period_us = file.read_text().split()
        return math.inf if time_us == "max" else int(time_us) / int(period_us)
    except (OSError, ValueError, ZeroDivisionError):
        return math.inf
