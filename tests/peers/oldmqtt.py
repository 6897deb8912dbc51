"""MQTT broker that speaks version 3.1.1 only. Mosquitto, which the other tests use, speaks version 5."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Literal

from tests.peers.network.loopback import listening

_CONNECT, _SUBSCRIBE, _PING, _DISCONNECT = 1, 8, 12, 14
_LEVEL_311 = 4
_LEVEL_AT = 6
"""Position of the protocol level in CONNECT, after the string ``MQTT`` with its length."""
_ACCEPTED, _REFUSED = b"\x20\x02\x00\x00", b"\x20\x02\x00\x01"


class OldBroker:
    """Broker that sends one message to each new subscription, and refuses other protocol versions in the given way.

    With ``closes``, the broker only closes the connection. With ``answers``, the broker first answers "unacceptable
    protocol version".
    """

    def __init__(self, refuses: Literal["closes", "answers"]) -> None:
        self.port = 0
        self.levels: list[int] = []
        """Protocol level of each CONNECT."""
        self.clean: list[bool] = []
        """Clean session flag of each CONNECT."""
        self._refuses = refuses
        self._tasks: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[OldBroker]:
        """Serve on a free loopback port."""
        try:
            async with listening(self._accept) as self.port:
                yield self
        finally:
            await self.drop()

    async def drop(self) -> None:
        """Close all connections."""
        tasks = [*self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                while (answer := self._answer(*await read_packet(reader))) is not None:
                    writer.write(answer)
                    await writer.drain()
                    if answer == _REFUSED:
                        return
        finally:
            writer.close()

    def _answer(self, kind: int, body: bytes) -> bytes | None:
        """Return the answer to a packet, None to close the connection."""
        if kind == _CONNECT:
            self.levels.append(body[_LEVEL_AT])
            self.clean.append(bool(body[_LEVEL_AT + 1] & 2))
            if body[_LEVEL_AT] != _LEVEL_311:
                return _REFUSED if self._refuses == "answers" else None
            return _ACCEPTED
        if kind == _SUBSCRIBE:
            topic = body[2 : 4 + int.from_bytes(body[2:4], "big")]
            message = topic + b"\x00\x0121.5"  # packet 1
            return b"\x90\x03" + body[:2] + b"\x01" + bytes([0x32, len(message)]) + message
        if kind == _PING:
            return b"\xd0\x00"
        return None if kind == _DISCONNECT else b""


async def read_packet(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Return kind and body of the next packet."""
    (first,) = await reader.readexactly(1)
    length, shift = 0, 0
    while True:
        (digit,) = await reader.readexactly(1)
        length |= (digit & 0x7F) << shift
        shift += 7
        if not digit & 0x80:
            return first >> 4, await reader.readexactly(length)
