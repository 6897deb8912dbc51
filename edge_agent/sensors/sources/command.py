"""A command that says readings, line by line."""

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
from edge_agent.sensors.named import LineReader
from edge_agent.sensors.source import Sink
from ingest.runtime.tether import tethered
from ingest.site import SensorConfig
from ingest.site.sensoroptions import CommandOptions

STOP_S = 2.0
"""A command that was told to stop may close its device; then it is killed."""
_CHUNK_BYTES = 4096
"""Two thousand of the shortest lines, which take some ms: everything else in the agent waits for that."""


class CommandSource:
    """A child process, which dies with the agent; what it has started itself is stopped with it."""

    def __init__(self, sensors: Sequence[SensorConfig]) -> None:
        self._sensors = sensors
        self._argv = cast(CommandOptions, sensors[0].parsed).argv

    async def run(self, sink: Sink) -> None:
        """Start the command and give what it says until it ends. Raise SourceUnusable with its last words."""
        process = await self._start()
        reader = LineReader(self._sensors)
        reading = asyncio.create_task(_read(process, reader, sink))
        saying, leaving = asyncio.create_task(last_stderr_line(process)), asyncio.create_task(wait_exited(process))
        try:
            # its helpers may hold its output open when it has gone; or it may close its output and live on
            await asyncio.wait({reading, leaving}, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({leaving}, timeout=STOP_S)
        finally:
            await _end(process)
            await asyncio.wait({reading, saying}, timeout=STOP_S)  # one that has left the group may hold the pipes
            for task in (reading, saying, leaving):
                task.cancel()
            await asyncio.wait({reading, saying, leaving})
            close_pipes(process)  # else they are open for as long as theirs
        if process.returncode == 0:  # the last line of one that was killed may be the half of a number
            reader.end(sink)
        raise SourceUnusable(f"{self._argv[0]} ended: {_reason(process, saying)}")

    async def _start(self) -> Process:
        try:
            return await start_process(
                tethered(self._argv), stdin=DEVNULL, stdout=PIPE, stderr=PIPE, start_new_session=True
            )
        except OSError as error:
            raise SourceUnusable(f"{self._argv[0]} cannot be started: {error}") from None


async def _read(process: Process, reader: LineReader, sink: Sink) -> None:
    assert process.stdout is not None  # noqa: S101  (narrowing: it was asked for)
    while data := await process.stdout.read(_CHUNK_BYTES):
        sink.opened()
        started_s = time.perf_counter()
        reader.feed(data, sink)
        # one that floods us has half of the loop's time at the most, and waits for its pipe
        await asyncio.sleep(time.perf_counter() - started_s)


async def _end(process: Process) -> None:
    """Stop a command's whole process group, also what is left of it when the command itself has gone."""
    _signal(process, signal.SIGTERM)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(STOP_S):
            await wait_exited(process)
    _signal(process, signal.SIGKILL)
    await wait_exited(process)


def _signal(process: Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _reason(process: Process, saying: asyncio.Task[str]) -> str:
    words = "" if saying.cancelled() else saying.result()
    return words or f"signal or status {process.returncode}"
