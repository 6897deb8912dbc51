"""A browser's WebSocket with live pictures, which costs little CPU, so that 50 viewers fit beside the stack.

The client reads the header of each picture, not the picture, and acknowledges it at once.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import struct
from collections import Counter
from typing import Any, NamedTuple, cast

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA
"""Opcodes of WebSocket frames (RFC 6455, section 5.2)."""
_FINAL, _MASKED = 0x80, 0x80
_SHORT, _LONG = 126, 127


class SocketFrame(NamedTuple):
    """One frame of a WebSocket."""

    opcode: int
    payload: bytes


def frames_in(buffer: bytearray) -> list[SocketFrame]:
    """Remove the complete frames from the begin of a server's bytes, and return the frames. Pure."""
    found, at = list[SocketFrame](), 0
    while len(buffer) - at >= 2:
        length, start = buffer[at + 1] & 0x7F, at + 2
        if length >= _SHORT:
            size = 2 if length == _SHORT else 8
            if len(buffer) < start + size:
                break
            length = int.from_bytes(buffer[start : start + size], "big")
            start += size
        if len(buffer) < start + length:
            break
        found.append(SocketFrame(buffer[at] & 0x0F, bytes(buffer[start : start + length])))
        at = start + length
    del buffer[:at]
    return found


def client_frame(opcode: int, payload: bytes) -> bytes:
    """Return a short frame of a client. Its mask is zero, which leaves the payload as it is. Pure."""
    assert len(payload) < _SHORT or opcode == TEXT
    if len(payload) < _SHORT:
        head = bytes([_FINAL | opcode, _MASKED | len(payload)])
    else:
        head = struct.pack(">BBH", _FINAL | opcode, _MASKED | _SHORT, len(payload))
    return head + bytes(4) + payload


class LiveClient(asyncio.Protocol):
    """One viewer of all cameras. ``pictures`` counts the received pictures by camera."""

    def __init__(self, port: int, cookie: str) -> None:
        self._port, self._cookie = port, cookie
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._upgraded = False
        self.watching = asyncio.Event()
        self.closed = False
        self.pictures: Counter[str] = Counter()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for a WebSocket."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports are no subclass
        host, key = f"127.0.0.1:{self._port}", base64.b64encode(os.urandom(16)).decode()
        head = ("GET /live HTTP/1.1", f"Host: {host}", f"Origin: http://{host}", f"Cookie: {self._cookie}")
        upgrade = (
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {key}",
            "Sec-WebSocket-Version: 13",
        )
        self._transport.write("\r\n".join((*head, *upgrade, "", "")).encode())

    def data_received(self, data: bytes) -> None:
        """Count pictures, and acknowledge each."""
        self._buffer += data
        if not self._upgraded:
            head, end, rest = bytes(self._buffer).partition(b"\r\n\r\n")
            if not end:
                return
            assert b" 101 " in head.split(b"\r\n")[0], f"the console refused the WebSocket: {head[:200]!r}"
            self._upgraded, self._buffer = True, bytearray(rest)
        for frame in frames_in(self._buffer):
            self._frame(frame)

    def connection_lost(self, exc: Exception | None) -> None:
        """Note the end of the connection."""
        self.closed = True

    def close(self) -> None:
        """Close the connection."""
        if self._transport:
            self._transport.close()

    def _frame(self, frame: SocketFrame) -> None:
        if frame.opcode == BINARY:
            end = 4 + struct.unpack_from(">I", frame.payload)[0]
            camera = json.loads(frame.payload[4:end])["camera"]
            self.pictures[camera] += 1
            self._send(TEXT, {"drawn": camera})
        elif frame.opcode == TEXT and not self.watching.is_set():
            self._send(TEXT, {"watch": [one["name"] for one in json.loads(frame.payload)["cameras"]]})
            self.watching.set()
        elif frame.opcode == PING and self._transport:
            self._transport.write(client_frame(PONG, frame.payload))

    def _send(self, opcode: int, message: dict[str, Any]) -> None:
        if self._transport:
            self._transport.write(client_frame(opcode, json.dumps(message).encode()))
