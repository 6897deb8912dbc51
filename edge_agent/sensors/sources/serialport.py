"""Source that reads lines from a serial port."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import serial

from edge_agent.exceptions import SourceUnusable
from edge_agent.sensors.source import Sink
from edge_agent.sensors.sources.lines import LineReader
from ingest.runtime.clock import Clock
from ingest.site import SensorConfig
from ingest.site.sensor import SerialOptions

_READ_S = 0.2
"""Maximum time of one read in its thread, and so of a stop."""
_CHUNK_BYTES = 4096


class SerialSource:
    """Serial port, read in a thread of its own and locked against other programs."""

    def __init__(self, sensors: Sequence[SensorConfig], clock: Clock) -> None:
        self._sensors, self._path = sensors, sensors[0].address
        self._options = cast(SerialOptions, sensors[0].parsed)

    async def run(self, sink: Sink) -> None:
        """Give the device's readings until cancelled. Raise SourceUnusable if the port is missing or unplugged."""
        loop, reader, port = asyncio.get_running_loop(), LineReader(self._sensors), _Port(self._path, self._options)
        thread = ThreadPoolExecutor(1, thread_name_prefix="serial")
        try:
            await loop.run_in_executor(thread, port.open)
            sink.opened()
            while True:
                reader.feed(await loop.run_in_executor(thread, port.read), sink)
        except (OSError, ValueError) as error:  # pyserial raises OSError, and ValueError for an impossible setting
            raise SourceUnusable(f"{self._path}: {error}") from None
        finally:
            await loop.run_in_executor(
                thread, port.close
            )  # after the thread's current read, which cannot be cancelled
            thread.shutdown()


class _Port:
    """Serial port whose methods belong to one thread."""

    def __init__(self, path: str, options: SerialOptions) -> None:
        self._path, self._options = path, options
        self._port: serial.Serial | None = None

    def open(self) -> None:
        options = self._options
        self._port = serial.Serial(
            self._path,
            options.baud,
            bytesize=options.bytesize,
            parity=options.parity,
            stopbits=options.stopbits,
            timeout=_READ_S,
            exclusive=True,
        )

    def read(self) -> bytes:
        """Return the available bytes, none after ``_READ_S``."""
        assert self._port is not None  # noqa: S101  (narrowing: the port is open)
        first: bytes = self._port.read(1)
        rest: bytes = self._port.read(min(self._port.in_waiting, _CHUNK_BYTES)) if first else b""
        return first + rest

    def close(self) -> None:
        if self._port:
            self._port.close()
