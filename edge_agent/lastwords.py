"""What a child process says before it goes."""

from __future__ import annotations

from asyncio.subprocess import Process

__all__ = ["last_words"]

_TAIL_BYTES = 400


async def last_words(process: Process) -> str:
    """Read what a child says on standard error, to its end, so that it never waits; return the last line.

    A pipe that nobody reads is full after 64 KiB, and the child would hang on it.
    """
    tail = b""
    while process.stderr and (said := await process.stderr.read(4096)):
        tail = (tail + said)[-_TAIL_BYTES:]
    lines = tail.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""
