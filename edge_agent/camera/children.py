"""How a child process is started, what it says before it goes, that it has gone, and that it leaves nothing."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import subprocess
from asyncio.subprocess import Process, SubprocessStreamProtocol
from collections.abc import Sequence
from typing import Any

LIMIT_BYTES = 64 * 1024
"""asyncio reads ahead from a child's pipe up to twice this."""
_LOOK_S = 0.05
_TAIL_BYTES = 400
_WORDS_S = 1.0
"""For the end of what a child said: a helper that has its pipe may live on."""


async def start(command: Sequence[str], *, limit: int = LIMIT_BYTES, **options: Any) -> Process:
    """Start a child as ``asyncio.create_subprocess_exec`` does. Raise OSError when none can be had.

    Each child has a thread that waits for it. Where no thread can be had, asyncio raises RuntimeError, and leaves a
    child that nobody knows: that one is killed.
    """
    loop = asyncio.get_running_loop()
    pipes = _Pipes(limit=limit, loop=loop)
    try:
        transport, _ = await loop.subprocess_exec(lambda: pipes, *command, **options)
    except RuntimeError as error:
        pipes.is_wanted = False
        raise OSError(errno.EAGAIN, str(error)) from error
    return Process(transport, pipes, loop)


class _Pipes(SubprocessStreamProtocol):
    is_wanted = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if not self.is_wanted:
            child: subprocess.Popen[bytes] = transport.get_extra_info("subprocess")
            child.kill()
            child.wait()
            transport.close()


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
