"""How large a picture may be, how much a capture child may allocate, and what it leaves when it crashes.

RLIMIT_AS counts what is only reserved: FFmpeg, OpenBLAS and the allocator's arenas reserve half a gigabyte before the
first frame. RLIMIT_DATA (getrlimit(2), since Linux 4.7) counts private memory that can be written to, and the kernel
holds it at every allocation: a decoder that grows gets no more, and ends or gives up the frame, before it takes the
machine's.
"""

from __future__ import annotations

import resource
from pathlib import Path

MAX_PIXELS = 7680 * 4320
"""8K. A header that claims more is refused before anything is allocated for it."""
_MIB = 1024 * 1024


def limit_memory(more_mb: int) -> None:
    """Let this process allocate so many MiB more than it has by now, and no more."""
    limit = _data_bytes() + more_mb * _MIB
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def leave_no_core() -> None:
    """Let this process leave no core: it would hold passwords, and pictures before anything was redacted."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _data_bytes() -> int:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmData:"))
    return int(line.split()[1]) * 1024
