"""Webhook receivers with scripted faults. Each receiver counts the posts that it got."""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Literal, NamedTuple

from ingest.contract.codec import decode_json
from ingest.contract.records import Alert

Behaviour = Literal["accept", "hang", "500", "429", "410", "redirect", "flaky"]

METADATA = "http://169.254.169.254/latest/meta-data/"
"""Address at which cloud providers serve credentials: the target of the redirect."""
FLAKY_SHARE = 0.3
"""Share of the posts that a flaky receiver fails: half of them by 500, half by closing the connection."""
BUSY_POSTS = 2
"""Number of posts that a busy receiver answers with 429 before it accepts."""
_RESPONSES = {
    "accept": b"HTTP/1.1 204 No Content\r\n\r\n",
    "500": b"HTTP/1.1 500 Broken\r\n\r\n",
    "429": b"HTTP/1.1 429 Busy\r\nretry-after: 2\r\n\r\n",
    "410": b"HTTP/1.1 410 Gone\r\n\r\n",
    "redirect": f"HTTP/1.1 302 Found\r\nlocation: {METADATA}\r\n\r\n".encode(),
}


class ReceivedPost(NamedTuple):
    """A post that was read completely: its ``webhook-id``, the id in its body, its time, and the answer."""

    id: str
    alert: str
    at_ns: int
    captured_ns: int
    answer: str


class FaultyPeer:
    """A receiver on a port of loopback, with a behaviour that may change while it runs."""

    def __init__(self, behaviour: Behaviour, seed: int = 0) -> None:
        self.behaviour = behaviour
        self.posts: list[ReceivedPost] = []
        self.port = 0
        self._random = random.Random(seed)
        self._posted = asyncio.Event()
        self._open: set[asyncio.Task[None]] = set()

    @property
    def accepted(self) -> list[str]:
        """The ids of the posts that were answered by a success, in order."""
        return [post.id for post in self.posts if post.answer == "accept"]

    async def until(self, done: Callable[[], bool]) -> None:
        """Wait until ``done`` holds, which is checked after each post."""
        while not done():
            self._posted.clear()
            await self._posted.wait()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read one post and answer it."""
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
            alert = decode_json(Alert, await reader.readexactly(int(headers["content-length"])))
            answer = self._answer()
            post = ReceivedPost(headers["webhook-id"], alert.id, time.time_ns(), alert.data.captured_ns, answer)
            self.posts.append(post)
            self._posted.set()
            if answer == "hang":
                await asyncio.Event().wait()
            if answer in _RESPONSES:
                writer.write(_RESPONSES[answer])
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._open.discard(task)
            writer.close()

    def _answer(self) -> str:
        if self.behaviour == "flaky":
            return self._random.choice(["500", "close"]) if self._random.random() < FLAKY_SHARE else "accept"
        if self.behaviour == "429":
            return "429" if len(self.posts) < BUSY_POSTS else "accept"
        return self.behaviour

    @asynccontextmanager
    async def running(self, tls: ssl.SSLContext | None = None) -> AsyncIterator[FaultyPeer]:
        """Accept connections during the ``async with`` block, on the port of the previous block if there was one."""
        server = await asyncio.start_server(self.serve, "127.0.0.1", self.port, ssl=tls, backlog=1000)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in list(self._open):
                task.cancel()
            await asyncio.gather(*self._open, return_exceptions=True)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(5.0):
                    await server.wait_closed()
