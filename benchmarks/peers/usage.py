"""Processor time, memory and I/O of processes with their child processes, from /proc through psutil."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil

DRIVER = "driver"
"""Name of the benchmark's own process in the figures."""


def _tree(pid: int) -> Iterator[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        yield from (root, *root.children(recursive=True))


def cpu_s(pid: int) -> float:
    """Return the user and system time in s of a process and its running child processes."""
    total = 0.0
    for process in _tree(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def pss_mb(pid: int) -> float:
    """Return the proportional set size of a process and its child processes, in MB."""
    total = 0
    for process in _tree(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += process.memory_full_info().pss
    return round(total / 1e6, 1)


def moved_bytes(pid: int) -> int:
    """Return the bytes that a process has read and written, to files and to sockets."""
    counters = psutil.Process(pid).io_counters()
    return int(counters.read_chars + counters.write_chars)


def stored_bytes(data: Path) -> int:
    """Return the size of the log segments of all partitions in a broker's data folder, without deleted topics."""
    files = [file for file in data.glob("*/*.log") if not file.parent.name.endswith("-delete")]
    return sum(file.stat().st_size for file in files)


class CpuMeter:
    """Measures the CPU time of processes from now on, and of the benchmark's own process."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = {**pids, DRIVER: os.getpid()}
        self._before = self._now()

    def ms_per(self, count: int) -> dict[str, float]:
        """Return the CPU time in ms per piece of work, by name of the process."""
        now = self._now()
        return {name: round(1000 * (now[name] - self._before[name]) / count, 6) for name in self._pids}

    def _now(self) -> dict[str, float]:
        return {name: _own_s() if name == DRIVER else cpu_s(pid) for name, pid in self._pids.items()}


def _own_s() -> float:
    times = os.times()
    return times.user + times.system
