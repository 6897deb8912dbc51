"""Run the whole stack on one machine for a while, drain it, and say what became of every frame."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import secrets
import shutil
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomli_w

from deploy.local.beside import beside
from deploy.local.demo.figures import Figures, report
from deploy.local.demo.truth import LineCrossing, score
from deploy.local.demo.watch import watching
from deploy.local.exceptions import StackError
from deploy.local.stack import AGENT, DOWNSTREAM, StackFiles, services
from deploy.local.supervisor import Supervisor
from ingest.kafka import topicadmin
from ingest.kafka.kafkalog import KafkaLog
from ingest.kafka.settings import KafkaSettings
from ingest.ledger.auditor import audit
from ingest.runtime.clock import Deadline
from ingest.site import ReceiverConfig, Site
from ingest.site.topic.store import publish

READY_TIMEOUT_S = 90.0
"""Ten Python processes that start at once on two cores need about fifteen seconds; a cold disk, some more."""
STOP_AGENT_S = 60.0
"""The agent hands its spool to Kafka before it ends."""
DRAIN_TIMEOUT_S = 60.0
"""After the agent has stopped, what is in flight is a second's work; a killed node's partitions move after 12 s."""
_POLL_S = 0.25
PARTITIONS = 4


@dataclass(frozen=True, slots=True)
class RunningStack:
    """A stack that runs: what a test needs to be unkind to it."""

    stack: Supervisor
    figures: Figures
    settings: KafkaSettings
    models: Path


@dataclass
class Demo:
    """What to run, and how to follow it."""

    settings: KafkaSettings
    files: StackFiles
    models: Path
    make_site: Callable[[ReceiverConfig], Site]
    read_truth: Callable[[Path], list[LineCrossing]]
    seconds: float
    """0 runs until it is told to stop."""
    on_tick: Callable[[Figures, float | None, dict[str, int]], None] = lambda *_: None
    on_step: Callable[[str], None] = lambda _: None
    during: Callable[[RunningStack], Coroutine[Any, Any, None]] | None = None
    """Run beside the stack: the tests' kills."""
    stop: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True, slots=True)
class DemoOutcome:
    """The ledger and the report of a finished run."""

    balance: dict[str, Any]
    report: dict[str, Any]


async def run(demo: Demo) -> DemoOutcome:
    """Run the stack, drain it and return its balance.

    Raise StackError when a service does not become ready, or alerts are not delivered, in time; LogUnavailable
    when Kafka does not answer.
    """
    receiver = _prepare_files(demo.files)
    site = demo.make_site(receiver)
    demo.files.site_file.write_text(tomli_w.dumps(site.model_dump(mode="json", exclude_none=True)))
    async with KafkaLog(demo.settings, "sightline-demo") as log:
        demo.on_step("creating topics")
        await topicadmin.create(demo.settings, partitions=PARTITIONS, replication=1)
        await publish(log, site.entries())
        async with _stack(demo, receiver) as stack, watching(demo.settings) as figures:
            await _live(demo, stack, figures)
            await _drain(demo, stack, figures, receivers=len(site.receivers))
            demo.on_step("auditing")
            balance = (await audit(log, wait_s=DRAIN_TIMEOUT_S)).to_dict()
        truth = demo.read_truth(demo.files.spool)
        scored = score(truth, figures.crossings()) if truth else None
        return DemoOutcome(balance, report(figures, balance, scored))


def _prepare_files(files: StackFiles) -> ReceiverConfig:
    shutil.rmtree(files.root, ignore_errors=True)
    files.root.mkdir(parents=True)
    files.secret_file.write_text("whsec_" + base64.b64encode(secrets.token_bytes(32)).decode() + "\n")
    files.secret_file.chmod(0o600)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return ReceiverConfig(
        name="receiver",
        url=f"http://127.0.0.1:{port}/",
        secret_file=files.secret_file,
        # A demonstration is over in minutes: the same schedule, but an hour's pause would outlive it.
        retry_s=(0, 1, 2, 4, 8, 15, 30),
    )


@contextlib.asynccontextmanager
async def _stack(demo: Demo, receiver: ReceiverConfig) -> AsyncIterator[Supervisor]:
    port = int(receiver.url.rsplit(":", 1)[1].rstrip("/"))
    specs = services(demo.files, demo.settings, demo.models, port)
    demo.on_step("starting services")
    async with Supervisor([s for s in specs if s.name != AGENT], demo.files.logs) as stack:
        try:
            yield stack
        finally:
            demo.on_step("stopping")


async def _live(demo: Demo, stack: Supervisor, figures: Figures) -> None:
    await _until(
        lambda: _ready(figures) or demo.stop.is_set(),
        READY_TIMEOUT_S,
        lambda: StackError(
            f"not ready in {READY_TIMEOUT_S:.0f} s: {sorted(_missing(figures))}; see {demo.files.logs}"
        ),
    )
    specs = services(demo.files, demo.settings, demo.models, 0)
    await stack.add(next(s for s in specs if s.name == AGENT))
    during = demo.during(RunningStack(stack, figures, demo.settings, demo.models)) if demo.during else _nothing()
    async with beside(during, to_its_end=True):
        await _ticks(demo, stack, figures)


async def _nothing() -> None:
    """Be unkind to nothing."""


async def _ticks(demo: Demo, stack: Supervisor, figures: Figures) -> None:
    ends = Deadline.after(demo.seconds) if demo.seconds else None
    while not demo.stop.is_set() and not (ends and ends.passed):
        demo.on_tick(figures, ends.left if ends else None, stack.restarts())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(demo.stop.wait(), _POLL_S)


async def _drain(demo: Demo, stack: Supervisor, figures: Figures, receivers: int) -> None:
    demo.on_step("draining")
    await stack.stop_one(AGENT, STOP_AGENT_S)

    def quiet() -> bool:
        still = time.time() - figures.last_s > _QUIET_S
        return still and len(figures.alerts) >= len(figures.events) and figures.undelivered(receivers) <= 0

    await _until(
        quiet,
        DRAIN_TIMEOUT_S,
        lambda: StackError(
            f"{len(figures.events)} events, {len(figures.alerts)} alerts, "
            f"{figures.undelivered(receivers)} undelivered after {DRAIN_TIMEOUT_S:.0f} s; see {demo.files.logs}"
        ),
    )


_QUIET_S = 3.0
"""No result for so long after the last frame was sent: longer than a batch's delay, a transaction and a restart of
the processor's loop; what is stuck for longer is the auditor's business, who waits for it."""


def _missing(figures: Figures) -> set[str]:
    wanted = set(DOWNSTREAM) - {"webhook-receiver"}
    return wanted - {name for name, (_, state) in figures.services.items() if state == "running"}


def _ready(figures: Figures) -> bool:
    return not _missing(figures)


async def _until(done: Callable[[], bool], timeout_s: float, late: Callable[[], StackError]) -> None:
    deadline = Deadline.after(timeout_s)
    while not done():
        if deadline.passed:
            raise late()
        await asyncio.sleep(_POLL_S)
