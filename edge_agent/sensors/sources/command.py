"""Source that reads the lines that a command prints."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Sequence
from typing import cast

from edge_agent.camera.children import close_pipes, last_stderr_line, start_process, wait_exited
from edge_agent.exceptions import SourceUnusable
from edge_agent.sensors.source import Sink
from edge_agent.sensors.sources.lines import LineReader
from ingest.runtime.tether import tethered
from ingest.site import SensorConfig
from ingest.site.sensor import CommandOptions

STOP_S = 2.0
"""Time in seconds that a command has to close its device after SIGTERM. A command that has not ended ``STOP_S`` after
SIGTERM is killed with SIGKILL."""
_CHUNK_BYTES = 4096
"""Maximum number of bytes in one read of the command's output. A read of 4,096 bytes may contain two thousand lines,
and parsing two thousand lines blocks the agent for a few ms."""


class CommandSource:
    """Source of the readings that a command prints.

    The command is a child process that ends when the agent ends. Helper processes that the command starts are stopped
    together with the command.
    """

    def __init__(self, sensors: Sequence[SensorConfig], *, stop_s: float = STOP_S) -> None:
        self._sensors, self._stop_s = sensors, stop_s
        self._argv = cast(CommandOptions, sensors[0].parsed).argv

    async def run(self, sink: Sink) -> None:
        """Start the command, and pass the command's readings to ``sink`` until the command ends.

        Raise SourceUnusable when the command has ended or cannot be started. The error of an ended command contains
        the last line of the command's standard error.
        """
        try:
            process = await start_process(
                tethered(self._argv), stdin=DEVNULL, stdout=PIPE, stderr=PIPE, start_new_session=True
            )
        except OSError as error:
            raise SourceUnusable(f"command {self._argv[0]} could not be started: {error}") from None
        reader = LineReader(self._sensors)
        reading = asyncio.create_task(_read(process, reader, sink))
        errors, exiting = asyncio.create_task(last_stderr_line(process)), asyncio.create_task(wait_exited(process))
        try:
            # helpers may hold the command's output open after its end, or it may close its output and stay alive
            await asyncio.wait({reading, exiting}, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({exiting}, timeout=self._stop_s)
        finally:
            await _end(process, self._stop_s)
            await asyncio.wait({reading, errors}, timeout=self._stop_s)  # a detached helper may hold the pipes
            for task in (reading, errors, exiting):
                task.cancel()
            await asyncio.wait({reading, errors, exiting})
            close_pipes(process)  # otherwise our pipe ends stay open as long as the helper's
        if process.returncode == 0:  # a killed command may have printed half of a number
            reader.end(sink)
        last_line = "" if errors.cancelled() else errors.result()
        raise SourceUnusable(f"command {self._argv[0]} ended: {last_line or f'exit status {process.returncode}'}")


async def _read(process: Process, reader: LineReader, sink: Sink) -> None:
    assert process.stdout is not None  # noqa: S101  (narrowing: stdout is a pipe)
    while data := await process.stdout.read(_CHUNK_BYTES):
        sink.opened()
        started_s = time.perf_counter()
        reader.feed(data, sink)
        # a command that floods its output gets at most half of the loop's time and waits for its pipe
        await asyncio.sleep(time.perf_counter() - started_s)


async def _end(process: Process, stop_s: float) -> None:
    """Stop a command's whole process group, including helper processes that outlive the command."""
    _signal(process, signal.SIGTERM)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(stop_s):
            await wait_exited(process)
    _signal(process, signal.SIGKILL)
    await wait_exited(process)


def _signal(process: Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
