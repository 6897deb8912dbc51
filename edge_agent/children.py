"""What a child process says before it goes, that it has gone, and that it leaves nothing."""

from __future__ import annotations

import asyncio
import contextlib
from asyncio.subprocess import Process

__all__ = ["clear_up", "end", "gone", "kill", "last_words", "let_go"]

_LOOK_S = 0.05
_TAIL_BYTES = 400
_WORDS_S = 1.0
"""For the end of what a child said: a helper that has its pipe may live on."""


async def gone(process: Process) -> None:
    """Wait until a child has gone. ``process.wait`` waits as well for whoever holds its pipes open still."""
    while process.returncode is None:  # noqa: ASYNC110  (asyncio tells nobody else)
        await asyncio.sleep(_LOOK_S)


async def last_words(process: Process) -> str:
    """Read what a child says on standard error, to its end, so that it never waits; return the last line.

    A pipe that nobody reads is full after 64 KiB, and the child would hang on it.
    """
    tail = b""
    while process.stderr and (said := await process.stderr.read(4096)):
        tail = (tail + said)[-_TAIL_BYTES:]
    lines = tail.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""


def kill(process: Process) -> None:
    """Send SIGKILL to a child that may have gone."""
    with contextlib.suppress(ProcessLookupError):
        process.kill()


async def end(process: Process, within_s: float) -> None:
    """Close a child's input, which tells it to end. Kill it when it does not in time, or at a cancellation."""
    if process.stdin:
        process.stdin.close()
    try:
        async with asyncio.timeout(within_s):
            await gone(process)
    except TimeoutError:
        pass
    finally:
        kill(process)
    await gone(process)


async def clear_up(process: Process, saying: asyncio.Task[str], within_s: float) -> None:
    """See that nothing is left of a child, neither itself nor its pipes; ``saying`` reads its last words."""
    try:
        await end(process, within_s)
        await asyncio.wait({saying}, timeout=_WORDS_S)
    finally:
        let_go(process)


def let_go(process: Process) -> None:
    """Close the pipes of a child that has gone: what nobody has read keeps its pipe open."""
    process._transport.close()  # type: ignore[attr-defined]  # asyncio has no other way
