"""The machine that an agent runs on: its disk and its clock."""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from edge_agent.tools.doctor.finding import Finding, bad, good, poor
from ingest.site import CameraConfig, DiskConfig, SensorConfig

SYNC_TRIES = 10
SYNC_BYTES = 64 * 1024
SLOW_SYNC_MS = 50.0
"""Each kept frame waits for one: at this, a camera of ten frames a second keeps the disk busy half of the time."""
_UNSYNCHRONISED = 0x40
"""STA_UNSYNC of adjtimex(2)."""
_TIMEX_BYTES = 208
"""``struct timex`` on 64-bit Linux."""
_OTHERS = 0o027
"""Whatever all may do, and what the group may do beside reading (docs/install-agent.md has secrets of a group)."""
LOOSE_ERROR_MS = 200.0
"""Of the clock: a person walks 30 cm meanwhile, and two cameras no longer agree on who was first."""


def look_at_disk(
    folder: Path, spooled: Sequence[CameraConfig | SensorConfig], config: DiskConfig | None = None
) -> Finding:
    """Write as the spool does, and see whether the spools of all fit. Blocks for a second at the most."""
    what = f"disk {folder}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        took_ms = _sync_ms(folder)
        free = psutil.disk_usage(str(folder)).free
        taken = sum(path.stat().st_size for path in folder.glob("spool.*"))  # of an agent that runs here already
    except OSError as error:
        return bad(what, f"{error.strerror}", "expected a folder on a disk that can be written to")
    config = config or DiskConfig()
    wanted = min(config.max_bytes, sum(each.spool.max_bytes for each in spooled))
    least = config.min_free_bytes + 2 * config.reserve_bytes  # the agent asks for twice of what it holds back
    text = f"{free / 1e9:.1f} GB free, {took_ms:.0f} ms to make {SYNC_BYTES // 1024} KiB last"
    if free + taken < least:
        text += f"; nothing is kept below {least / 1e9:.1f} GB"
        return bad(what, text, "make room, a larger disk, or lower spool.min_free_bytes")
    if free + taken < wanted:
        text += f"; the spools may take {wanted / 1e9:.1f} GB"
        return poor(what, text, "lower spool.max_bytes, or a larger disk")
    if took_ms > SLOW_SYNC_MS:
        return poor(what, text, "a disk that is quicker to sync, an SSD or an industrial card")
    return good(what, text)


def _sync_ms(folder: Path) -> float:
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


def look_at_clock() -> Finding:
    """Ask the kernel whether the clock is kept in time, and how far off it may be."""
    library = ctypes.CDLL(ctypes.util.find_library("c"), use_errno=True)
    buffer = ctypes.create_string_buffer(_TIMEX_BYTES)
    if ctypes.sizeof(ctypes.c_long) != 8 or library.adjtimex(buffer) < 0:
        return poor("clock", "the kernel does not tell", "make sure that chrony or systemd-timesyncd runs")
    # offsets of struct timex: modes (int), then longs: offset, freq, maxerror, esterror, then status (int)
    error_ms = ctypes.c_long.from_buffer(buffer, 24).value / 1e3
    status = ctypes.c_int.from_buffer(buffer, 40).value
    return judged_clock(status, error_ms)


def judged_clock(status: int, error_ms: float) -> Finding:
    """Return what adjtimex's status and largest error, in ms, mean."""
    if status & _UNSYNCHRONISED:
        return poor("clock", "nothing keeps it in time", "install chrony or systemd-timesyncd: events bear its time")
    if error_ms > LOOSE_ERROR_MS:
        return poor("clock", f"kept in time within {error_ms:.0f} ms", "a nearer time server")
    return good("clock", f"kept in time within {error_ms:.1f} ms")


def look_at_secret(path: Path, of: str) -> Finding:
    """See whether a secret can be read, and by nobody but its owner and its group: an agent may be of the latter."""
    what = f"secret of {of}"
    try:
        mode = path.stat().st_mode
        with path.open("rb") as file:
            empty = not file.read(1)
    except OSError as error:
        return bad(what, f"{path}: {error.strerror}", "expected a file that the agent's user can read")
    if empty:
        return bad(what, f"{path} is empty", "write the secret into it")
    if mode & _OTHERS:
        return poor(what, f"{path} can be read or changed by others", f"chmod 640 {path}")
    return good(what, f"{path}")
