"""Checks of the machine that an agent runs on: disk, clock and secret files."""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from edge_agent.tools.doctor.finding import Finding, bad, good, poor
from ingest.runtime.files import make_folder
from ingest.site import CameraConfig, DiskConfig, SensorConfig

SYNC_TRIES = 10
SYNC_BYTES = 64 * 1024
SLOW_SYNC_MS = 50.0
"""Median time of one sync to disk (fsync) above which a disk counts as slow, in ms. The agent waits for one sync for
each frame that it stores. With syncs of 50 ms, a camera of ten frames a second keeps the disk busy half of the
time."""
_UNSYNCHRONISED = 0x40
"""Flag ``STA_UNSYNC`` in the status of adjtimex(2): the clock is not synchronised."""
_TIMEX_BYTES = 208
"""Size of ``struct timex`` on 64-bit Linux, in bytes."""
_OTHERS = 0o027
"""Permission bits that a secret file must not have: any for others, and write or execute for the group. The group may
read the file, because docs/install-agent.md gives secret files to a group."""
LOOSE_ERROR_MS = 200.0
"""Maximum error of the system clock that the check accepts, in ms. A person walks 30 cm in 200 ms. If the clock error
exceeds 200 ms, the events of two cameras may appear in the wrong order."""


def median_sync_ms(folder: Path) -> float:
    """Return the median time to write and sync ``SYNC_BYTES``, in ms. Raise OSError."""
    path, took_ms, data = folder / ".doctor", [], os.urandom(SYNC_BYTES)
    try:
        with path.open("wb") as file:
            for _ in range(SYNC_TRIES):
                started_s = time.perf_counter()
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                took_ms.append((time.perf_counter() - started_s) * 1e3)
    finally:
        path.unlink(missing_ok=True)
    return statistics.median(took_ms)


def check_disk(
    folder: Path,
    spooled: Sequence[CameraConfig | SensorConfig],
    config: DiskConfig | None = None,
    *,
    sync_ms: Callable[[Path], float] = median_sync_ms,
) -> Finding:
    """Measure how long a sync to disk takes, and compare the free disk space with the size limits of the spool.

    The call blocks for at most 1 s.
    """
    subject = f"disk {folder}"
    try:
        make_folder(folder)
        took_ms = sync_ms(folder)
        free = psutil.disk_usage(str(folder)).free
        taken = sum(path.stat().st_size for path in folder.glob("spool.*"))  # files of an agent that already runs
    except OSError as error:
        return bad(subject, f"{error.strerror}", "use a folder on a writable disk")
    config = config or DiskConfig()
    wanted = min(config.max_bytes, sum(each.spool.max_bytes for each in spooled))
    least = config.min_free_bytes + 2 * config.reserve_bytes  # the agent needs twice its reserve
    text = f"{free / 1e9:.1f} GB free, {took_ms:.0f} ms to sync {SYNC_BYTES // 1024} KiB"
    if free + taken < least:
        text += f"; below {least / 1e9:.1f} GB no frame is kept"
        return bad(subject, text, "free disk space, use a larger disk, or lower spool.min_free_bytes")
    if free + taken < wanted:
        text += f"; the spools may take {wanted / 1e9:.1f} GB"
        return poor(subject, text, "lower spool.max_bytes, or use a larger disk")
    if took_ms > SLOW_SYNC_MS:
        return poor(subject, text, "use a disk that syncs faster: an SSD or an industrial card")
    return good(subject, text)


def check_clock() -> Finding:
    """Ask the kernel whether the system clock is synchronised, and how large the clock's error may be."""
    library = ctypes.CDLL(ctypes.util.find_library("c"), use_errno=True)
    buffer = ctypes.create_string_buffer(_TIMEX_BYTES)
    if ctypes.sizeof(ctypes.c_long) != 8 or library.adjtimex(buffer) < 0:
        return poor("clock", "the kernel gives no clock status", "make sure that chrony or systemd-timesyncd runs")
    # offsets of struct timex: modes (int), then longs: offset, freq, maxerror, esterror, then status (int)
    error_ms = ctypes.c_long.from_buffer(buffer, 24).value / 1e3
    status = ctypes.c_int.from_buffer(buffer, 40).value
    return judged_clock(status, error_ms)


def judged_clock(status: int, error_ms: float) -> Finding:
    """Return the finding for a clock, given the status and the maximum error in ms from adjtimex(2)."""
    if status & _UNSYNCHRONISED:
        return poor(
            "clock",
            "not synchronised",
            "install chrony or systemd-timesyncd, because events carry the time of this clock",
        )
    if error_ms > LOOSE_ERROR_MS:
        return poor("clock", f"synchronised within {error_ms:.0f} ms", "use a nearer time server")
    return good("clock", f"synchronised within {error_ms:.1f} ms")


def check_secret(path: Path, of: str) -> Finding:
    """Check that a secret file is not empty, and that only its owner and its group can read it."""
    subject = f"secret of {of}"
    try:
        mode = path.stat().st_mode
        with path.open("rb") as file:
            empty = not file.read(1)
    except OSError as error:
        return bad(subject, f"{path}: {error.strerror}", "create the file, readable for the agent's user")
    if empty:
        return bad(subject, f"{path} is empty", "write the secret into the file")
    if mode & _OTHERS:
        return poor(subject, f"{path} is accessible to other users", f"chmod 640 {path}")
    return good(subject, f"{path}")
