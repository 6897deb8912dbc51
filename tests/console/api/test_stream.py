"""Tests of the stream of server-sent events of the HTTP API."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fastapi import Request

from console.access.guard import SESSION
from console.api import routes
from console.app import make_app
from console.context import ConsoleContext
from ingest.kafka.memorylog import MemoryLog
from tests.console.conftest import Browser
from tests.console.records import alert, configure, event, receipt, write

Open = Callable[..., Browser]


class Stream:
    """A client of the stream of news, which calls the application without a network."""

    def __init__(self, context: ConsoleContext, cookies: httpx.Cookies, *, last: str = "", query: str = "") -> None:
        self._app = make_app(context)
        cookie = "; ".join(f"{one.name}={one.value}" for one in cookies.jar)
        headers = [(b"host", b"console.example"), (b"cookie", cookie.encode())]
        headers += [(b"last-event-id", last.encode())] if last else []
        self._scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": "/api/stream",
            "raw_path": b"/api/stream",
            "query_string": query.encode(),
            "root_path": "",
            "headers": headers,
            "client": ("192.0.2.1", 50_000),
            "server": ("console.example", 80),
            "state": {},
        }
        self._sent: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._gone = asyncio.Event()

    async def __aenter__(self) -> Stream:
        self._task = asyncio.create_task(self._app(self._scope, self._receive, self._sent.put))
        start = await asyncio.wait_for(self._sent.get(), 30.0)
        assert (start["status"], dict(start["headers"])[b"content-type"][:17]) == (200, b"text/event-stream")
        assert (await asyncio.wait_for(self._sent.get(), 30.0))["body"] == b"retry: 2000\n\n"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._gone.set()
        await asyncio.wait_for(self._task, 30.0)

    async def next(self) -> tuple[str, str, str]:
        """Return id, kind and data of the next message."""
        body = (await asyncio.wait_for(self._sent.get(), 30.0))["body"].decode()
        fields = dict(line.split(": ", 1) for line in body.strip().splitlines())
        return fields.get("id", ""), fields["event"], fields["data"]

    async def ended(self) -> None:
        """Wait until the application ends the stream by itself."""
        await asyncio.wait_for(asyncio.shield(self._task), 30.0)

    async def _receive(self) -> dict[str, Any]:
        await self._gone.wait()
        return {"type": "http.disconnect"}


async def test_the_api_event_stream_sends_events_that_the_user_may_see_and_resumes_after_an_interruption(
    browser: Open, context: ConsoleContext, log: MemoryLog
) -> None:
    await configure(log)
    await write(log, event(1))
    await context.feed.catch_up(log)
    one = browser()
    await one.sign_in("vera")
    async with Stream(context, one.cookies) as stream:
        await write(log, event(2, "yard"), event(3), alert(event(3)), receipt(alert(event(3)), "dead"))
        await context.feed.catch_up(log)
        news = [await stream.next() for _ in range(3)]
        assert [(kind, json.loads(data).get("id", "")) for _, kind, data in news] == [
            ("event", "event-3"),
            ("alert", "msg_event-3"),
            ("delivery", ""),
        ]
    async with Stream(context, one.cookies, last=news[0][0]) as stream:
        assert (await stream.next())[1] == "alert"
    async with Stream(context, one.cookies, last="00000000-7") as stream:
        assert (await stream.next())[1] == "gap"
    async with Stream(context, one.cookies, query="kinds=alert") as stream:
        await write(log, event(4), alert(event(4)))
        await context.feed.catch_up(log)
        assert (await stream.next())[1] == "alert"
    assert (await one.get("/api/stream?kinds=all")).status_code == 422


async def test_the_api_event_stream_ends_when_its_user_signs_out(
    browser: Open, context: ConsoleContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "KEEP_ALIVE_S", 0.01)
    one = browser()
    await one.sign_in("vera")
    async with Stream(context, one.cookies) as stream:
        await one.submit("/sign-out")
        await stream.ended()


async def test_the_api_event_stream_ends_after_sign_out_even_if_new_events_never_pause(
    context: ConsoleContext, log: MemoryLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "KEEP_ALIVE_S", 0.0)
    await context.feed.catch_up(log)
    vera = context.users.named("vera")
    assert vera
    secret = context.sessions.open(vera.id, "", "")
    identity = context.sessions.identity(secret)
    assert identity
    headers = [(b"cookie", f"{SESSION}={secret}".encode())]
    request = Request({"type": "http", "method": "GET", "headers": headers, "app": make_app(context).app})
    context.sessions.close(secret)
    received = 0
    async for _ in routes._news(request, identity, context, {"event"}, ""):
        context.feed.happenings.add_event(event(received))
        received += 1
        assert received < 10
