"""What a child process says before it goes, that it has gone, and that it must."""

from __future__ import annotations

import asyncio
import contextlib
from asyncio.subprocess import Process

__all__ = ["gone", "kill", "last_words"]

_LOOK_S = 0.05
_TAIL_BYTES = 400


async def gone(process: Process) -> None:
    """Wait until a child has gone. ``process.wait`` waits as well for whoever holds its pipes open still."""
    while process.returncode is None:  # noqa: ASYNC110  (asyncio tells nobody else)
        await asyncio.sleep(_LOOK_S)


def kill(process: Process) -> None:
    """Kill a child, which may just have gone by itself: between the end of a wait for that and this."""
    with contextlib.suppress(ProcessLookupError):
        process.kill()


async def last_words(process: Process) -> str:
    """Read what a child says on standard error, to its end, so that it never waits; return the last line.

    A pipe that nobody reads is full after 64 KiB, and the child would hang on it.
    """
    tail = b""
    while process.stderr and (said := await process.stderr.read(4096)):
        tail = (tail + said)[-_TAIL_BYTES:]
    lines = tail.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""
