"""TCP proxy that can cut, hang or slow its connections."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.peers.network.loopback import listening

_CHUNK_BYTES = 4096


class Proxy:
    """Proxy in front of one local port."""

    def __init__(self, to_port: int) -> None:
        self._to_port = to_port
        self._flows = asyncio.Event()
        self._flows.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.bytes_per_s = 0.0
        """Rate towards the client; 0 means unlimited."""
        self.deaf = False
        """Whether data from the client is dropped while the connection stays open."""
        self.passed_bytes = 0
        self.port = 0

    def hang(self) -> None:
        """Keep all connections open, and forward nothing."""
        self._flows.clear()

    def go_on(self) -> None:
        """Resume forwarding."""
        self._flows.set()

    def cut(self) -> None:
        """Abort all connections, like a router that loses power."""
        for writer in list(self._writers):
            writer.transport.abort()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Proxy]:
        """Listen on a free port."""
        try:
            async with listening(self._serve) as self.port:
                yield self
        finally:
            self.cut()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._to_port)
            self._writers.add(there_writer)
            back = asyncio.create_task(self._pass(there_reader, writer, slowly=True))
            await self._pass(reader, there_writer, slowly=False)
            await asyncio.gather(back, return_exceptions=True)
            self._writers.discard(there_writer)
        except OSError:
            writer.transport.abort()
        finally:
            self._writers.discard(writer)
            self._tasks.discard(task)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, slowly: bool) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK_BYTES):
                await self._flows.wait()
                if self.deaf and not slowly:
                    continue
                if slowly and self.bytes_per_s:
                    await asyncio.sleep(len(data) / self.bytes_per_s)
                writer.write(data)
                await writer.drain()
                self.passed_bytes += len(data) if slowly else 0
        writer.close()
