"""Fixtures for the tests of the console: a console with two users, and browsers that sign in."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest
from argon2 import PasswordHasher

from console.access.passwords import Passwords
from console.access.roles import Limits, Role
from console.app import make_app
from console.context import ConsoleContext
from ingest.kafka.memorylog import MemoryLog
from ingest.runtime.clock import ManualClock

ADDRESS = "http://console.example"
PASSWORD = "correct horse battery staple"


class Browser(httpx.AsyncClient):
    """A browser: it keeps cookies, and sends the token of the last loaded form."""

    csrf = ""

    async def load(self, path: str) -> str:
        """Load a page, remember the token of its forms, and return its HTML."""
        html = (await self.get(path)).text
        found = re.search(r'name="csrf" value="([^"]+)"', html)
        self.csrf = found.group(1) if found else ""
        return html

    async def submit(self, path: str, **fields: str) -> httpx.Response:
        """Submit a form with the remembered token."""
        return await self.post(path, data={"csrf": self.csrf, **fields})

    async def sign_in(self, name: str, password: str = PASSWORD, target: str = "/") -> httpx.Response:
        """Load the form for sign-in, submit it, and load the account page for its token."""
        await self.load("/sign-in")
        response = await self.submit("/sign-in", name=name, password=password, next=target)
        if response.status_code == 303:
            await self.load("/account")
        return response


@pytest.fixture
def clock() -> ManualClock:
    """Return the clock of the console."""
    return ManualClock()


@pytest.fixture
def log(clock: ManualClock) -> MemoryLog:
    """Return the log that the console reads."""
    return MemoryLog(clock=clock)


@pytest.fixture
def context(tmp_path: Path, clock: ManualClock, log: MemoryLog) -> Iterator[ConsoleContext]:
    """Return a console's state with an admin, an operator of site north, and a viewer of camera gate.

    Passwords have cheap hashes, because the cost of Argon2 is not under test.
    """
    cheap = Passwords(PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    made = ConsoleContext(tmp_path, clock=clock, passwords=cheap, make_log=lambda _: log)
    hashed = cheap.hash_now(PASSWORD)
    for name, role, limits in (
        ("ada", Role.ADMIN, Limits(everywhere=True)),
        ("otto", Role.OPERATOR, Limits(sites=frozenset({"north"}))),
        ("vera", Role.VIEWER, Limits(cameras=frozenset({"gate"}))),
    ):
        made.users.add(name, hashed, role, limits, must_change=False)
    yield made
    made.close()


@pytest.fixture
async def browser(context: ConsoleContext) -> AsyncIterator[Callable[..., Browser]]:
    """Return a function that opens another browser, at a given address."""
    app = make_app(context)
    async with AsyncExitStack() as stack:

        def open_browser(address: str = "192.0.2.1") -> Browser:
            transport = httpx.ASGITransport(app, client=(address, 50_000))
            made = Browser(transport=transport, base_url=ADDRESS)
            stack.push_async_callback(made.aclose)
            return made

        yield open_browser
