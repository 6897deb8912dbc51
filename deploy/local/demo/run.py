"""Run of a whole stack on one machine: start, capture, drain, audit."""

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
"""Time limit of the start, in seconds. Ten Python processes on two cores need about fifteen, more on a cold disk."""
STOP_AGENT_S = 60.0
"""Time limit of the agent's stop, in seconds. The agent first sends its spool to Kafka."""
DRAIN_TIMEOUT_S = 60.0
"""Time limit of the drain, in seconds. Frames in flight take one; a killed node's partitions move after twelve."""
_QUIET_S = 3.0
"""Time without a result after which the stack is drained, in seconds.

Longer than a batch's delay, a transaction and a restart of the processor's loop. The audit waits for slower frames.
"""
_POLL_S = 0.25
PARTITIONS = 4


@dataclass(frozen=True, slots=True)
class RunningStack:
    """A running stack, as tests that kill its processes see it."""

    stack: Supervisor
    figures: Figures
    settings: KafkaSettings
    models: Path


@dataclass
class Demo:
    """Description of a run, with the callbacks that follow it."""

    settings: KafkaSettings
    files: StackFiles
    models: Path
    make_site: Callable[[ReceiverConfig], Site]
    read_truth: Callable[[Path], list[LineCrossing]]
    seconds: float
    """Length of the run. 0: until ``stop`` is set."""
    on_tick: Callable[[Figures, float | None, dict[str, int]], None] = lambda *_: None
    on_step: Callable[[str], None] = lambda _: None
    during: Callable[[RunningStack], Coroutine[Any, Any, None]] | None = None
    """Work beside the stack, such as the kills of tests."""
    stop: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True, slots=True)
class DemoOutcome:
    """The ledger and the report of a finished run."""

    balance: dict[str, Any]
    report: dict[str, Any]


async def run(demo: Demo) -> DemoOutcome:
    """Run the stack, drain it and return its ledger and report.

    Raise StackError when a service is not ready, or an alert not delivered, in time. Raise LogUnavailable when Kafka
    does not answer.
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
        # The usual schedule without its long pauses, because a demo lasts minutes.
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
        lambda: not _missing(figures) or demo.stop.is_set(),
        READY_TIMEOUT_S,
        lambda: f"not ready within {READY_TIMEOUT_S:.0f} s: {sorted(_missing(figures))}. See {demo.files.logs}",
    )
    specs = services(demo.files, demo.settings, demo.models, 0)
    await stack.add(next(s for s in specs if s.name == AGENT))
    during = demo.during(RunningStack(stack, figures, demo.settings, demo.models)) if demo.during else None
    async with beside(during, to_its_end=True) if during else contextlib.nullcontext():
        await _ticks(demo, stack, figures)


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
        lambda: (
            f"{len(figures.events)} events, {len(figures.alerts)} alerts, "
            f"{figures.undelivered(receivers)} undelivered after {DRAIN_TIMEOUT_S:.0f} s. See {demo.files.logs}"
        ),
    )


def _missing(figures: Figures) -> set[str]:
    wanted = set(DOWNSTREAM) - {"webhook-receiver"}
    return wanted - {name for name, (_, state) in figures.services.items() if state == "running"}


async def _until(done: Callable[[], bool], timeout_s: float, problem: Callable[[], str]) -> None:
    deadline = Deadline.after(timeout_s)
    while not done():
        if deadline.passed:
            raise StackError(problem())
        await asyncio.sleep(_POLL_S)
