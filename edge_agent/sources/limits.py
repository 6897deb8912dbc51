"""Limits of a capture process: picture size, memory, and core dumps.

The memory limit is RLIMIT_DATA (getrlimit(2), since Linux 4.7), which counts private writable memory. RLIMIT_AS would
also count reserved memory, and FFmpeg, OpenBLAS and the allocator reserve half a gigabyte before the first frame. If
a decoder uses too much memory, its next allocation fails before the host runs out of memory.
"""

from __future__ import annotations

import resource
from pathlib import Path

MAX_PIXELS = 7680 * 4320
"""Maximum number of pixels in a picture: 7680 × 4320 (8K). A picture whose header states more pixels is refused
before memory is allocated."""
_MIB = 1024 * 1024


def limit_memory(more_mb: int) -> None:
    """Limit the memory of this process to its current allocation plus ``more_mb`` MiB."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmData:"))
    limit = int(line.split()[1]) * 1024 + more_mb * _MIB
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def leave_no_core() -> None:
    """Disable core dumps: a dump would contain passwords and unredacted pictures."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
