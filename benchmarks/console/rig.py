"""A console beside a running stack, and a signed-in user's HTTP client."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import httpx

from console.access.guard import SESSION
from console.access.roles import Limits, Role
from console.context import ConsoleContext
from deploy.local.demo.run import SHIPPED_MODELS, Demo, DemoOutcome, RunningStack, free_port, prepare_files
from deploy.local.demo.run import run as run_stack
from deploy.local.demo.site import simulated_site
from deploy.local.kafka.broker import Broker
from deploy.local.stack import CONSOLE, StackFiles, console_service
from engines.repository.store import Repository
from ingest.kafka.settings import KafkaSettings
from ingest.runtime.clock import Deadline
from ingest.site import Site

MODEL = "regions"
"""The shipped model, which the demo uses too."""
START_S = 60.0
"""Time limit of the console's start, in seconds."""
REQUEST_S = 120.0
"""Time limit of a request, in seconds. The limit is long, so that a slow page is measured."""
_POLL_S = 0.2


class RunningConsole:
    """A running console: its address on loopback, a user's session, and the client of this user."""

    def __init__(self, running: RunningStack, port: int, session: str) -> None:
        self._running = running
        self.port = port
        self.cookie = f"{SESSION}={session}"
        self.client = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", headers={"Cookie": self.cookie}, timeout=REQUEST_S
        )

    @property
    def pid(self) -> int | None:
        """The process id of the console; None while the console does not run."""
        return self._running.stack.pid(CONSOLE)


@contextlib.asynccontextmanager
async def console_beside(running: RunningStack, files: StackFiles) -> AsyncIterator[RunningConsole]:
    """Start a console beside a stack, with an admin who is signed in. The stack stops the console at its end.

    Raise TimeoutError if the console does not answer in time.
    """
    context = ConsoleContext(files.console)
    try:
        password = context.passwords.hash_now(secrets.token_urlsafe())
        user = context.users.add("ada", password, Role.ADMIN, Limits(everywhere=True), must_change=False)
        session = context.sessions.open(user.id, "127.0.0.1", "benchmark")
    finally:
        context.close()
    port = free_port()
    await running.stack.add(console_service(files, running.settings, port))
    console = RunningConsole(running, port, session)
    async with console.client:
        await _answers(console)
        yield console


async def _answers(console: RunningConsole) -> None:
    deadline = Deadline.after(START_S)
    while True:
        with contextlib.suppress(httpx.TransportError):
            (await console.client.get("/system")).raise_for_status()
            return
        if deadline.passed:
            raise TimeoutError(f"the console did not answer within {START_S:.0f} s")
        await asyncio.sleep(_POLL_S)


class PreparedStack(NamedTuple):
    """The files, the topics and the site of a stack that has not been started."""

    files: StackFiles
    settings: KafkaSettings
    site: Site

    @classmethod
    def of(cls, name: str, folder: Path, broker: Broker, evidence: str = "") -> PreparedStack:
        """Prepare the stack of the demo. All topics begin with ``name``, and ``evidence`` may name a store."""
        files = StackFiles(folder / "stack", evidence)
        site = simulated_site(Repository(SHIPPED_MODELS).open(MODEL).manifest, prepare_files(files))
        return cls(files, KafkaSettings(bootstrap=broker.bootstrap, prefix=f"{name}."), site)


async def run_beside(
    stack: PreparedStack,
    work: Callable[[RunningStack, RunningConsole], Awaitable[None]],
    say: Callable[[str], None],
) -> DemoOutcome:
    """Run a stack with a console until ``work`` ends. Raise StackError and LogUnavailable as the demo does."""
    files, settings, site = stack
    stop = asyncio.Event()

    async def during(running: RunningStack) -> None:
        try:
            async with console_beside(running, files) as console:
                await work(running, console)
        finally:
            stop.set()

    return await run_stack(Demo(settings, files, SHIPPED_MODELS, site, 0.0, on_step=say, during=during, stop=stop))
