"""A WebSocket client that calls an ASGI application without a network."""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.types import ASGIApp, Message

TIMEOUT_S = 30.0


class SocketClosed(Exception):
    """The application closed the connection, or did not accept it."""


@dataclass
class Socket:
    """The client's end of a connection."""

    sent: asyncio.Queue[Message] = field(default_factory=asyncio.Queue)
    received: asyncio.Queue[Message] = field(default_factory=asyncio.Queue)

    async def send(self, message: dict[str, Any]) -> None:
        """Send a message as JSON."""
        await self.sent.put({"type": "websocket.receive", "text": json.dumps(message)})

    async def send_text(self, text: str) -> None:
        """Send a text."""
        await self.sent.put({"type": "websocket.receive", "text": text})

    async def read(self) -> dict[str, Any]:
        """Return the next message: the object of a text, or the header of a picture with its bytes under ``image``.

        Raise SocketClosed.
        """
        message = await asyncio.wait_for(self.received.get(), TIMEOUT_S)
        if message["type"] == "websocket.accept":
            return await self.read()
        if message["type"] != "websocket.send":
            raise SocketClosed(message)
        found: dict[str, Any]
        if message.get("text"):
            found = json.loads(message["text"])
            return found
        data = message["bytes"]
        end = 4 + struct.unpack(">I", data[:4])[0]
        found = json.loads(data[4:end])
        return {**found, "image": data[end:]}


@contextlib.asynccontextmanager
async def connected(app: ASGIApp, path: str, headers: Mapping[str, str]) -> AsyncIterator[Socket]:
    """Open a connection, and close it at the end of the ``with`` block."""
    socket = Socket()
    scope = {
        "type": "websocket",
        "asgi": {"version": "3.0"},
        "scheme": "ws",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
        "client": ("192.0.2.1", 50_000),
        "server": ("console.example", 80),
        "subprotocols": [],
        "state": {},
    }
    await socket.sent.put({"type": "websocket.connect"})
    task = asyncio.create_task(_run(app, scope, socket))
    try:
        yield socket
    finally:
        await socket.sent.put({"type": "websocket.disconnect", "code": 1000})
        await asyncio.wait_for(task, TIMEOUT_S)


async def _run(app: ASGIApp, scope: dict[str, Any], socket: Socket) -> None:
    await app(scope, socket.sent.get, socket.received.put)
    await socket.received.put({"type": "ended"})
