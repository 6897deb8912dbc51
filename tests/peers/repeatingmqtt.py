"""MQTT 5 broker that repeats messages as it is told to, whatever the client acknowledged."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from tests.peers.network.loopback import listening
from tests.peers.oldmqtt import read_packet

_SUBSCRIBE = 8
_PUBLISH, _REPEATED = 0x32, 0x3A
"""First bytes of PUBLISH with QoS 1, without and with the flag for a repeated message."""


@dataclass(frozen=True, slots=True)
class Connection:
    """What the broker sends on one connection. Message ``n`` has packet identifier ``n`` and payload ``n``."""

    kept: bool
    """The broker says that it kept the session of the earlier connection."""
    repeats: Sequence[int] = ()
    sends: Sequence[int] = ()


class RepeatingBroker:
    """Broker that serves one ``Connection`` after the other, and closes each connection but the last."""

    def __init__(self, topic: str, *connections: Connection) -> None:
        self.port = 0
        self.acknowledged = asyncio.Event()
        """Set when the client has acknowledged all messages of the last connection."""
        self._topic = topic.encode()
        self._connections = [*connections]

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[RepeatingBroker]:
        """Serve on a free loopback port."""
        async with listening(self._serve) as self.port:
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = self._connections.pop(0)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await read_packet(reader)  # CONNECT
            writer.write(bytes((0x20, 3, connection.kept, 0, 0)))
            kind, body = await read_packet(reader)
            assert kind == _SUBSCRIBE
            writer.write(b"\x90\x04" + body[:2] + b"\x00\x01")
            messages = [(_REPEATED, number) for number in connection.repeats]
            messages += [(_PUBLISH, number) for number in connection.sends]
            for first, number in messages:
                writer.write(self._message(first, number))
            for _ in messages:
                await read_packet(reader)  # PUBACK
            if not self._connections:
                self.acknowledged.set()
                await reader.read()
        writer.close()

    def _message(self, first: int, number: int) -> bytes:
        body = len(self._topic).to_bytes(2, "big") + self._topic + number.to_bytes(2, "big") + b"\x00%d" % number
        return bytes((first, len(body))) + body
