"""A command that says readings, line by line."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Sequence
from typing import cast

from edge_agent.exceptions import SourceUnusable
from edge_agent.lastwords import last_words
from edge_agent.sensors.named import LineReader
from edge_agent.sensors.source import Sink
from ingest.site import SensorConfig
from ingest.site.sensoroptions import CommandOptions
from ingest.tether import tethered

__all__ = ["CommandSource"]

STOP_S = 2.0
"""A command that was told to stop may close its device; then it is killed."""
_CHUNK_BYTES = 16 * 1024


class CommandSource:
    """A child process, which dies with the agent; what it has started itself is stopped with it."""

    def __init__(self, sensors: Sequence[SensorConfig]) -> None:
        self._sensors = sensors
        self._argv = cast(CommandOptions, sensors[0].parsed).argv

    async def run(self, sink: Sink) -> None:
        """Start the command and give what it says until it ends. Raise SourceUnusable with its last words."""
        process = await self._start()
        saying = asyncio.create_task(last_words(process))
        try:
            await self._read(process, sink)
            with contextlib.suppress(TimeoutError):  # it may close its output and live on
                await asyncio.wait_for(process.wait(), STOP_S)
        finally:
            await _end(process)
            await asyncio.wait({saying}, timeout=STOP_S)  # one that has left the group may hold the pipe open
            saying.cancel()
            await asyncio.wait({saying})
        raise SourceUnusable(f"{self._argv[0]} ended: {_reason(process, saying)}")

    async def _start(self) -> Process:
        try:
            return await asyncio.create_subprocess_exec(
                *tethered(self._argv), stdin=DEVNULL, stdout=PIPE, stderr=PIPE, start_new_session=True
            )
        except OSError as error:
            raise SourceUnusable(f"{self._argv[0]} cannot be started: {error}") from None

    async def _read(self, process: Process, sink: Sink) -> None:
        assert process.stdout is not None  # noqa: S101  (narrowing: it was asked for)
        reader = LineReader(self._sensors)
        while data := await process.stdout.read(_CHUNK_BYTES):
            sink.opened()
            reader.feed(data, sink)
        reader.end(sink)


async def _end(process: Process) -> None:
    """Stop a command's whole process group, also what is left of it when the command itself has gone."""
    _signal(process, signal.SIGTERM)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.shield(process.wait()), STOP_S)
    _signal(process, signal.SIGKILL)
    await process.wait()


def _signal(process: Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _reason(process: Process, saying: asyncio.Task[str]) -> str:
    words = "" if saying.cancelled() or not saying.done() else saying.result()
    return words or f"signal or status {process.returncode}"
