"""Real Modbus device that a test can kill and restart."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from ingest.runtime.tether import tethered

SERVER = Path(__file__).with_name("modbus_server.py")


class ModbusServer:
    """Process of ``modbus_server.py``."""

    def __init__(self, kind: str, where: str) -> None:
        self._command = [sys.executable, str(SERVER), kind, where]
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Start the device and wait until it listens."""
        process = self._process = subprocess.Popen(tethered(self._command), stdout=subprocess.PIPE)  # noqa: ASYNC220
        assert process.stdout
        async with asyncio.timeout(20):
            assert await asyncio.to_thread(process.stdout.readline) == b"ready\n"

    def kill(self) -> None:
        """Kill the device."""
        if self._process and self._process.stdout:
            self._process.kill()
            self._process.wait()
            self._process.stdout.close()
            self._process = None


@contextlib.asynccontextmanager
async def serving(kind: str, where: str) -> AsyncIterator[ModbusServer]:
    """Run a device for the time of the context."""
    server = ModbusServer(kind, where)
    await server.start()
    try:
        yield server
    finally:
        server.kill()
