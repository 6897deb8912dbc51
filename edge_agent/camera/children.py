"""Functions that start, monitor and stop child processes, and release their pipes."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import subprocess
import sys
from asyncio.subprocess import PIPE, Process, SubprocessStreamProtocol
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge_agent.sources.limits import MAX_PIXELS
from ingest.runtime.tether import tethered
from ingest.site import CameraConfig

READ_AHEAD_BYTES = 64 * 1024
"""Limit of asyncio's stream reader in bytes: the reader buffers up to twice this limit plus one record.

With a low limit, fewer buffered frames are lost when the agent is killed. While the disk is slow, frames wait in the
capture process, which withholds new frames when its queue is full.
"""
CHILD_ENVIRONMENT = {
    "OPENCV_IO_MAX_IMAGE_PIXELS": str(MAX_PIXELS),
    "OPENBLAS_NUM_THREADS": "1",  # the agent multiplies no matrices, and each OpenBLAS thread would allocate buffers
    "MALLOC_ARENA_MAX": "2",  # one arena for each thread would retain the memory of freed frames
}
_POLL_S = 0.05
_STDERR_TAIL_BYTES = 400
_STDERR_S = 1.0
"""Maximum wait until the standard error of an exited process is closed, in seconds. A helper process that inherited
the pipe of standard error may keep the pipe open after the capture process has exited."""


async def start_capture(
    camera: CameraConfig, epoch: int, truth_folder: Path | None = None, state_folder: Path | None = None
) -> Process:
    """Start the capture process of a camera, and send the configuration to its standard input.

    Raise OSError when no process can be started. The kernel kills the capture process when the agent dies. The
    capture process ends cleanly when its standard input is closed.
    """
    process = await start_process(
        tethered([sys.executable, "-m", "edge_agent.camera.child"]),
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        env=os.environ | CHILD_ENVIRONMENT,
        start_new_session=True,  # Ctrl-C reaches only the agent, which then stops its children cleanly
    )
    orders = {
        "camera": camera.model_dump(mode="json"),
        "epoch": epoch,
        "truth_folder": str(truth_folder) if truth_folder else None,
        "state_folder": str(state_folder) if state_folder else None,
    }
    assert process.stdin is not None  # noqa: S101  (narrowing: stdin is a pipe)
    # no drain(): a cancellation during drain() would leak the child
    process.stdin.write(json.dumps(orders).encode() + b"\n")
    return process


async def start_process(command: Sequence[str], **options: Any) -> Process:
    """Start a child process as ``asyncio.create_subprocess_exec`` does, but without leaking the process if a thread
    cannot be started.

    Raise OSError when no process can be started. For each child process, asyncio starts a thread that waits for its
    exit. When asyncio cannot start the thread, asyncio raises RuntimeError and leaves the child running.
    ``start_process`` kills a child that asyncio left running, and raises OSError.
    """
    loop = asyncio.get_running_loop()
    pipes = _Pipes(limit=READ_AHEAD_BYTES, loop=loop)
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


async def wait_exited(process: Process) -> None:
    """Wait until the child process has exited.

    The method ``process.wait`` of asyncio would also wait until all other processes have closed the pipes that they
    inherited.
    """
    while process.returncode is None:  # noqa: ASYNC110  (asyncio offers no event for this)
        await asyncio.sleep(_POLL_S)


async def last_stderr_line(process: Process) -> str:
    """Read the standard error of a process to its end.

    Return the last line of standard error, or an empty string if there is no output. The agent must read standard
    error, because a child process blocks when it writes to a pipe that already holds 64 KiB.
    """
    tail = b""
    while process.stderr and (data := await process.stderr.read(4096)):
        tail = (tail + data)[-_STDERR_TAIL_BYTES:]
    lines = tail.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""


def kill(process: Process) -> None:
    """Send SIGKILL to a child process; do nothing if the process has already exited."""
    with contextlib.suppress(ProcessLookupError):
        process.kill()


async def stop_process(process: Process, within_s: float) -> None:
    """Close the standard input of a child process and wait until the process exits.

    Kill the process if it runs longer than ``within_s``, or if this call is cancelled.
    """
    if process.stdin:
        process.stdin.close()
    try:
        async with asyncio.timeout(within_s):
            await wait_exited(process)
    except TimeoutError:
        pass
    finally:
        kill(process)
    await wait_exited(process)


async def clean_up(process: Process, stderr_reader: asyncio.Task[str], within_s: float) -> None:
    """Stop a child process, wait for the task that reads its standard error, and close its pipes."""
    try:
        await stop_process(process, within_s)
        await asyncio.wait({stderr_reader}, timeout=_STDERR_S)
    finally:
        close_pipes(process)


def close_pipes(process: Process) -> None:
    """Close the pipes of a child process that has exited.

    asyncio itself does not close a pipe that still contains unread data.
    """
    process._transport.close()  # type: ignore[attr-defined]  # asyncio has no public method for this
