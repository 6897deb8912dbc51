"""Webhook receivers for tests: a socket that gives scripted answers, even bytes that no HTTP server would send."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

import httpx
from fastapi import FastAPI


class Post(NamedTuple):
    """One post as it was received. Header names are in lower case."""

    headers: dict[str, str]
    body: bytes


Reaction = Callable[[Post, asyncio.StreamWriter], Awaitable[None]]


class PostReceiver:
    """Receiver on a free port of loopback. ``posts`` has every complete post, in order."""

    def __init__(self, react: Reaction) -> None:
        self.posts: list[Post] = []
        self.url = ""
        self._react = react
        self._open: set[asyncio.Task[None]] = set()

    @property
    def ids(self) -> list[str]:
        """The ``webhook-id`` of every post, in order."""
        return [post.headers["webhook-id"] for post in self.posts]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read one post and answer it."""
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[1:-2]
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head)}
            post = Post(headers, await reader.readexactly(int(headers["content-length"])))
            self.posts.append(post)
            await self._react(post, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._open.discard(task)
            writer.close()

    async def stop(self) -> None:
        """Cut the connections that are open."""
        for task in list(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)


@asynccontextmanager
async def receiving(react: Reaction, port: int = 0) -> AsyncIterator[PostReceiver]:
    """Serve until the end of the block."""
    receiver = PostReceiver(react)
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", port)
    receiver.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
    try:
        yield receiver
    finally:
        server.close()
        await receiver.stop()
        await server.wait_closed()


def answer(*parts: bytes) -> Reaction:
    """Return a reaction that sends these bytes and closes the connection."""

    async def react(_: Post, writer: asyncio.StreamWriter) -> None:
        writer.write(b"".join(parts))
        await writer.drain()

    return react


def repeat(first: bytes, part: bytes, pause_s: float = 0.0) -> Reaction:
    """Return a reaction that sends ``first``, then ``part`` without end."""

    async def react(_: Post, writer: asyncio.StreamWriter) -> None:
        writer.write(first)
        while True:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause_s)

    return react


async def silence(_: Post, writer: asyncio.StreamWriter) -> None:
    """Never answer."""
    await asyncio.Event().wait()


def application(app: FastAPI) -> Reaction:
    """Return a reaction that answers as an ASGI application does."""

    async def react(post: Post, writer: asyncio.StreamWriter) -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://receiver") as client:
            response = await client.post("/", content=post.body, headers=post.headers)
        writer.write(b"HTTP/1.1 %d \r\ncontent-length: 0\r\n\r\n" % response.status_code)
        await writer.drain()

    return react
