"""Runs a whole stack on one machine, waits for the results of all frames, and audits the ledger."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Collection, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import tomli_w

from deploy.local.demo import site as demosite
from deploy.local.demo.figures import Figures, report
from deploy.local.demo.truth import LineCrossing, score
from deploy.local.demo.watch import beside, watching
from deploy.local.exceptions import StackError
from deploy.local.kafka.broker import Broker
from deploy.local.stack import AGENT, StackFiles, console_service, services
from deploy.local.supervisor import ServiceSpec, Supervisor
from edge_agent.sources.simulated.truth import read_truth
from engines.decoders import CLASSIFIERS
from engines.repository.manifest import Manifest
from engines.repository.store import Repository
from ingest.exceptions import ConfigError
from ingest.kafka import topicadmin
from ingest.kafka.kafkalog import KafkaLog
from ingest.kafka.settings import KafkaSettings
from ingest.ledger.auditor import audit
from ingest.runtime.clock import Deadline
from ingest.runtime.eventloop import stop_event
from ingest.runtime.files import make_folder
from ingest.site import ReceiverConfig, Site, load
from ingest.site.topic.store import publish
from stream.rules import validated_site

READY_TIMEOUT_S = 90.0
"""Time limit of the start, in seconds. Ten Python processes on two cores start in about 15 s, or more slowly if their
files are not in the disk cache."""
STOP_AGENT_S = 60.0
"""Time limit of the agent's stop, in seconds. Before the agent exits, it sends its spool to Kafka."""
DRAIN_TIMEOUT_S = 60.0
"""Maximum time to wait for the results of all sent frames, in seconds. Frames in flight need about 1 s, and a killed
node's partitions move to another node within 12 s."""
_QUIET_S = 5.0
"""Time without a new result, in seconds, after which all frames count as processed.

``_QUIET_S`` is longer than the delay of a batch, a transaction and a restart of the stream processor's loop together.
The audit waits for frames whose processing takes longer than ``_QUIET_S``.
"""
_POLL_S = 0.25
PARTITIONS = 4
SHIPPED_MODELS = Path(__file__).resolve().parents[3] / "engines" / "models"
_SHIPPED_MODEL = "regions"
_PREFIX = "sightline-demo-"


@dataclass(frozen=True, slots=True)
class RunningStack:
    """Handles to a running stack, for tests that kill its processes."""

    stack: Supervisor
    figures: Figures
    settings: KafkaSettings
    models: Path


During = Callable[[RunningStack], Coroutine[Any, Any, None]]
"""Coroutine function that runs while the stack runs, for example to kill processes in a test."""


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """Options of the demo command. ``home`` is the folder of the run's files. If ``model`` is given, ``decoder`` is
    required too.

    ``site`` is a user's own site file, whose models are in the repository ``models``. With ``site``, videos and
    ``model`` must not be given.
    """

    seconds: float
    home: Path
    videos: tuple[Path, ...] = ()
    model: Path | None = None
    decoder: str = ""
    labels: tuple[str, ...] = ()
    line: str = ""
    """Line in the videos whose crossings are counted, as ``x1,y1,x2,y2`` in shares of width and height. An empty
    value puts the line in the middle of the picture."""
    site: Path | None = None
    models: Path = SHIPPED_MODELS
    fused: bool = False
    """Whether the engine node prepares the frames, without `sightline prepare`."""
    console: bool = False
    """Whether the console runs as well."""


@dataclass
class Demo:
    """Description of a run, with callbacks that report its progress."""

    settings: KafkaSettings
    files: StackFiles
    models: Path
    site: Site
    seconds: float
    """Length of the run in seconds. If 0, the run lasts until ``stop`` is set."""
    on_tick: Callable[[Figures, float | None, dict[str, int]], None] = lambda *_: None
    on_step: Callable[[str], None] = lambda _: None
    during: During | None = None
    has_truth: bool = True
    """Whether the site has the counting lines of the simulated scenes. Detected crossings are compared with the
    ground truth only if ``has_truth`` is set."""
    fused: bool = False
    console: bool = False
    stop: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True, slots=True)
class DemoOutcome:
    """The counts of frames by outcome, and the report of a finished run."""

    balance: dict[str, Any]
    report: dict[str, Any]


async def run_demo(
    options: DemoOptions,
    *,
    on_step: Callable[[str], None] = lambda _: None,
    on_tick: Callable[[Figures, float | None, dict[str, int]], None] = lambda *_: None,
    during: During | None = None,
    broker: Broker | None = None,
) -> DemoOutcome:
    """Run one demo with its own topics. Raise ConfigError, DeployError, EngineError or IngestError if the demo fails.

    If ``SIGHTLINE_KAFKA`` is set, the demo runs on the Kafka cluster at this address, and deletes its topics at the
    end. If ``SIGHTLINE_KAFKA`` is not set, the demo runs on ``broker``, by default a new broker, and its topics stay
    there until the next demo.
    """
    make_site, models = _site(options)
    base = KafkaSettings.from_env()
    own = None if "SIGHTLINE_KAFKA" in os.environ else broker or Broker()
    if own:
        on_step("starting Kafka")
        base = base.model_copy(update={"bootstrap": own.start()})
    settings = base.model_copy(update={"prefix": f"{_PREFIX}{time.time_ns() // 1_000_000}."})
    on_step(f"for other commands: SIGHTLINE_KAFKA={settings.bootstrap} SIGHTLINE_KAFKA_PREFIX={settings.prefix}")
    try:
        if own:  # earlier demos left gigabytes of pictures
            await topicadmin.remove(settings, prefix=_PREFIX)
        files = StackFiles(options.home)
        receiver = prepare_files(files)
        site = make_site(receiver)
        try:
            return await run(
                Demo(
                    settings,
                    files,
                    models,
                    site,
                    options.seconds,
                    on_tick,
                    on_step,
                    during,
                    has_truth=options.site is None,
                    fused=options.fused,
                    console=options.console,
                    stop=stop_event(),
                )
            )
        finally:
            if not own:  # leave no topic in a shared cluster, and do not touch other demos there
                await topicadmin.remove(settings, prefix=settings.prefix)
    finally:
        if own and not own.attached:
            own.stop()


def _site(options: DemoOptions) -> tuple[Callable[[ReceiverConfig], Site], Path]:
    """Check all options.

    Return two values: a function that makes the site from the settings of the demo's receiver, and the path of the
    model repository.
    """
    for given, key in ((options.videos, "--video"), (options.model, "--model")):
        if options.site and given:
            raise ConfigError(
                "demo", key, str(given), f"no {key}, because the file of --site names the cameras and models"
            )
    if options.line and not options.videos:
        raise ConfigError("demo", "--line", options.line, "--video as well: --line belongs to a video")
    if options.site:
        own = validated_site(load(options.site), options.site)
        demosite.require_models(own, options.models)
        return lambda receiver: demosite.with_receiver(own, receiver), options.models
    demosite.require_videos(options.videos)
    line = demosite.parse_line(options.line) if options.line else demosite.MIDDLE
    models, manifest = _model(options)
    if not options.videos:
        return lambda receiver: demosite.simulated_site(manifest, receiver), models
    regions = manifest.decoder in CLASSIFIERS
    return (
        lambda receiver: demosite.video_site(options.videos, manifest, receiver=receiver, regions=regions, line=line),
        models,
    )


def _model(options: DemoOptions) -> tuple[Path, Manifest]:
    """Return the path of the model repository, and the manifest of the model to use."""
    if options.model is None:
        return SHIPPED_MODELS, Repository(SHIPPED_MODELS).open(_SHIPPED_MODEL).manifest
    if not options.decoder:
        raise ConfigError("demo", "--decoder", "", "the decoder of the model's outputs, e.g. yolox")
    from engines.repository.adopt import AdoptOptions, adopt

    repository = Repository(options.home.parent / "models")
    name = "".join(c if c.isalnum() else "-" for c in options.model.stem.lower()).strip("-")
    model = adopt(options.model, repository, AdoptOptions(name, options.decoder, options.labels))
    repository.promote(name, model.manifest.version)
    return repository.root, model.manifest


def prepare_files(files: StackFiles) -> ReceiverConfig:
    """Empty the folder of a stack, write the receiver's secret, and return receiver settings with a free port."""
    shutil.rmtree(files.root, ignore_errors=True)
    make_folder(files.root)
    files.secret_file.write_text("whsec_" + base64.b64encode(secrets.token_bytes(32)).decode() + "\n")
    files.secret_file.chmod(0o600)
    return ReceiverConfig(
        name="receiver",
        url=f"http://127.0.0.1:{free_port()}/",
        secret_file=files.secret_file,
        allow_private=True,
        # The usual schedule without its long pauses, because a demo lasts minutes.
        retry_s=(0, 1, 2, 4, 8, 15, 30),
    )


def free_port() -> int:
    """Return a TCP port of loopback on which no process listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


async def run(demo: Demo) -> DemoOutcome:
    """Run the stack, wait for the results of all frames, and return the ledger's counts of frames by outcome, and the
    report.

    Raise StackError if a service is not ready in time, or an alert is not delivered in time. Raise LogUnavailable if
    Kafka does not answer.
    """
    demo.files.site_file.write_text(tomli_w.dumps(demo.site.model_dump(mode="json", exclude_none=True)))
    port = urlsplit(demo.site.receivers[0].url).port or 0
    *downstream, agent = services(demo.files, demo.settings, demo.models, port, fused=demo.fused)
    async with KafkaLog(demo.settings, "sightline-demo") as log:
        demo.on_step("creating topics")
        await topicadmin.create(demo.settings, partitions=PARTITIONS, replication=1)
        await publish(log, demo.site.entries())
        demo.on_step("starting services")
        async with Supervisor(downstream, demo.files.logs) as stack, watching(demo.settings) as figures:
            try:
                if demo.console:
                    await _add_console(demo, stack)
                await _live(demo, stack, agent, figures, {spec.name for spec in downstream})
                await _drain(demo, stack, figures)
                demo.on_step("auditing")
                balance = (await audit(log, wait_s=DRAIN_TIMEOUT_S)).to_dict()
                await _until_quiet(demo, figures)  # on a busy machine, an event may come during the audit
            finally:
                demo.on_step("stopping")
        truth = _true_crossings(demo.files.spool) if demo.has_truth else []
        scored = score(truth, figures.crossings()) if truth else None
        return DemoOutcome(balance, report(figures, balance, scored))


async def _add_console(demo: Demo, stack: Supervisor) -> None:
    """Start the console, and report its address and the one-time password of its first user."""
    from console.context import ConsoleContext
    from console.state.users import FIRST_ADMIN

    port = free_port()
    context = ConsoleContext(demo.files.console)
    password = context.add_first_admin()
    context.close()
    await stack.add(console_service(demo.files, demo.settings, port))
    demo.on_step(f"console: http://127.0.0.1:{port}/")
    demo.on_step(f"first sign-in: user {FIRST_ADMIN}, one-time password {password}")


async def _live(
    demo: Demo, stack: Supervisor, agent: ServiceSpec, figures: Figures, downstream: Collection[str]
) -> None:
    """Start the agent as soon as all services in ``downstream`` report the state ``running``.

    Show the live table until the run ends.
    """

    def missing() -> set[str]:
        wanted = set(downstream) - {"webhook-receiver"}
        return wanted - figures.running

    await _until(
        lambda: not missing() or demo.stop.is_set(),
        READY_TIMEOUT_S,
        lambda: f"not ready within {READY_TIMEOUT_S:.0f} s: {sorted(missing())}. See {demo.files.logs}",
    )
    await stack.add(agent)
    during = demo.during(RunningStack(stack, figures, demo.settings, demo.models)) if demo.during else None
    async with beside(during, to_its_end=True) if during else contextlib.nullcontext():
        ends = Deadline.after(demo.seconds) if demo.seconds else None
        while not demo.stop.is_set() and not (ends and ends.passed):
            demo.on_tick(figures, ends.left if ends else None, stack.restarts())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(demo.stop.wait(), _POLL_S)


async def _drain(demo: Demo, stack: Supervisor, figures: Figures) -> None:
    demo.on_step("draining")
    await stack.stop_one(AGENT, STOP_AGENT_S)
    await _until_quiet(demo, figures)


async def _until_quiet(demo: Demo, figures: Figures) -> None:
    """Wait until every event has an alert, every alert is delivered or dead, and no more results arrive."""
    receivers = [demo.site.receivers[0].name]  # a user's own receivers may be down for hours

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


async def _until(done: Callable[[], bool], timeout_s: float, problem: Callable[[], str]) -> None:
    deadline = Deadline.after(timeout_s)
    while not done():
        if deadline.passed:
            raise StackError(problem())
        await asyncio.sleep(_POLL_S)


def _true_crossings(folder: Path) -> list[LineCrossing]:
    """Return the true crossings that the simulated cameras wrote into the agent's data folder."""
    return [
        LineCrossing(
            camera=header["camera"],
            direction=crossing["direction"],
            at_ns=frame.crossed_ns(crossing, header["scene"]["fps"]),
            label=crossing["label"],
        )
        for path in sorted((folder / "truth").glob("*.jsonl"))
        for header, frame in read_truth(path)
        for crossing in frame.crossings
    ]
