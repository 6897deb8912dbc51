"""Limits of a capture child: picture size, memory, and core dumps.

RLIMIT_AS also counts reserved memory: FFmpeg, OpenBLAS and the allocator's arenas reserve half a gigabyte before the
first frame. RLIMIT_DATA (getrlimit(2), since Linux 4.7) counts private writable memory, and the kernel checks it at
every allocation. A decoder that grows too large fails before it exhausts the host's memory.
"""

from __future__ import annotations

import resource
from pathlib import Path

MAX_PIXELS = 7680 * 4320
"""Maximum picture size in px (8K). A header that claims more is refused before any allocation."""
_MIB = 1024 * 1024


def limit_memory(more_mb: int) -> None:
    """Limit this process to ``more_mb`` MiB beyond its current allocation."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmData:"))
    limit = int(line.split()[1]) * 1024 + more_mb * _MIB
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def leave_no_core() -> None:
    """Disable core dumps: a dump would contain passwords and unredacted pictures."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
