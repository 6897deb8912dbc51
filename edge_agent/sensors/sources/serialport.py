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
"""Maximum time of one read, in seconds. The time is short because stopping the source waits until the current read
ends."""
_CHUNK_BYTES = 4096


class SerialSource:
    """Source that reads a serial port in a separate thread, and locks the port against other programs."""

    def __init__(self, sensors: Sequence[SensorConfig], clock: Clock) -> None:
        self._sensors, self._path = sensors, sensors[0].address
        self._options = cast(SerialOptions, sensors[0].parsed)

    async def run(self, sink: Sink) -> None:
        """Pass the device's readings to ``sink`` until cancelled.

        Raise SourceUnusable if the port is missing or unplugged.
        """
        loop, reader = asyncio.get_running_loop(), LineReader(self._sensors)
        thread = ThreadPoolExecutor(1, thread_name_prefix="serial")
        port = serial.Serial(timeout=_READ_S, exclusive=True)  # opens below, in the thread
        try:
            port.port, port.baudrate, port.bytesize = self._path, self._options.baud, self._options.bytesize
            port.parity, port.stopbits = self._options.parity, self._options.stopbits
            await loop.run_in_executor(thread, port.open)
            sink.opened()
            while True:
                reader.feed(await loop.run_in_executor(thread, _read, port), sink)
        except (OSError, ValueError) as error:  # pyserial raises OSError, and ValueError for an impossible setting
            raise SourceUnusable(f"{self._path}: {error}") from None
        finally:
            # after the thread's current read, which cannot be cancelled
            await loop.run_in_executor(thread, port.close)
            thread.shutdown()


def _read(port: serial.Serial) -> bytes:
    """Return the available bytes, or empty bytes if nothing arrives within ``_READ_S`` seconds."""
    first: bytes = port.read(1)
    rest: bytes = port.read(min(port.in_waiting, _CHUNK_BYTES)) if first else b""
    return first + rest
