"""Soak test of an agent for hours while broker and cameras fail: the agent's memory and file descriptors must not
grow.

``python -m benchmarks.soak --hours 2`` runs a real broker, and one agent with RTSP cameras (if ``make peers`` has
installed the RTSP server), simulated cameras, a simulated sensor, and a sensor of the host's CPU load. Faults are
caused one after the other: the broker is killed, the RTSP server is killed or hangs, a capture process is killed, and
a camera is removed from the ``config`` topic and added again. Every 20 seconds, the memory, file descriptors and
threads of each process are measured. At the end, the test stops the agent, and compares the ledger with the topics.

Flat: a figure is flat if, after the warm-up, the median of its last quarter is at most ``SLACK`` above the median of
its first quarter. A leak of one memory page per frame adds up to megabytes within minutes.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import psutil
import tomli_w
import typer

from benchmarks.outage import ledger_of
from benchmarks.report import KeepIt, conclude, log_progress
from deploy.local.kafka.broker import Broker
from deploy.local.supervisor import ServiceSpec, Supervisor
from edge_agent.sources.simulated.config import SceneConfig
from edge_agent.sources.simulated.scene import SimulatedScene
from ingest import site
from ingest.kafka import topicadmin
from ingest.kafka.kafkalog import KafkaLog
from ingest.kafka.log import Log
from ingest.kafka.settings import KafkaSettings
from ingest.ledger.auditor import audit
from ingest.runtime import eventloop
from ingest.site.topic import store as configstore
from tests.peers import units
from tests.peers.rtsp import RtspServer, why_not

PARTITIONS = 4
SLACK = 0.05
"""Accepted growth of memory, as a share. Memory use varies by 2 to 3 % over an hour because of the allocator
alone."""
SLACK_FILES = 2
"""Accepted growth of the numbers of file descriptors and threads: a new connection may be open while a sample is
taken."""
MAX_LOG_LINES = 40
"""Maximum number of lines of a traceback in the report."""
TRAVELLER = "simulated-0"
"""Name of the camera that the test removes from the ``config`` topic and adds again."""


@dataclass(frozen=True)
class SoakOptions:
    """Options of a run. All times are in seconds. ``fault_s`` is the length of each fault."""

    seconds: float = 7200.0
    fps: float = 10.0
    rtsp: int = 2
    simulated: int = 2
    every_s: float = 20.0
    warm_s: float = 600.0
    fault_every_s: float = 240.0
    fault_s: float = 20.0


@dataclass
class Sample:
    """Resources of the agent and its child processes at one time. Memory is the unique set size (USS), in MB."""

    at_s: float
    agent_mb: float
    agent_files: int
    agent_threads: int
    children: int
    children_mb: float
    children_files: int


@dataclass
class Soak:
    """The running processes, and the names of the faults caused so far."""

    options: SoakOptions
    broker: Broker
    stack: Supervisor
    log: Log
    wanted: site.Site
    server: RtspServer | None
    say: Callable[[str], None]
    faults: list[str] = field(default_factory=list)

    def agent(self) -> psutil.Process:
        """Return the agent's process."""
        pid = self.stack.pid("agent")
        if pid is None:
            raise RuntimeError(f"the agent is down. See its log in {self.stack.folder}")
        return psutil.Process(pid)


async def run(options: SoakOptions, folder: Path, broker: Broker, say: Callable[[str], None]) -> dict[str, Any]:
    """Run the soak and return the report."""
    async with AsyncExitStack() as ends:
        soak = await ends.enter_async_context(_running(options, folder, broker, say))
        samples, stop = list[Sample](), asyncio.Event()
        watching = asyncio.create_task(_watch(soak, samples, stop))
        try:
            await _cause_faults(soak)
        finally:
            stop.set()
            await watching
        say("stopping")
        await soak.stack.stop_one("agent", 60)
        balance = await audit(soak.log, wait_s=0)
        died = _traceback(folder / "logs" / "agent.log")
    warm = [s for s in samples if s.at_s >= min(options.warm_s, options.seconds / 4)]
    return {
        "faults": len(soak.faults),
        "restarts": soak.stack.restarts()["agent"],
        "died_of": died,
        "flat": judged(warm),
        "ledger": ledger_of(balance.totals.to_dict()),
        "samples": [asdict(s) for s in samples],
    }


def _traceback(log: Path) -> list[str]:
    """Return the last lines of a log that are not JSON: the traceback of a process that died."""
    return [line for line in log.read_text(errors="replace").splitlines() if not line.startswith("{")][
        -MAX_LOG_LINES:
    ]


def judged(samples: Sequence[Sample]) -> dict[str, Any]:
    """Return the medians of the first and last quarter, the slope and the verdict, by name of the figure."""
    return {
        name: _flat([s.at_s for s in samples], [getattr(s, name) for s in samples], slack)
        for name, slack in (
            ("agent_mb", SLACK),
            ("agent_files", SLACK_FILES),
            ("agent_threads", SLACK_FILES),
            ("children_mb", SLACK),
            ("children_files", SLACK_FILES),
        )
    }


def faults(report: dict[str, Any]) -> list[str]:
    """Check a report, and return the failed checks."""
    wrong = [f"{name} not flat" for name, figure in report["flat"].items() if not figure["flat"]]
    wrong += [f"{report['restarts']} restarts of the agent"] if report["restarts"] else []
    wrong += [name for name in ("missing", "holes", "duplicates") if report["ledger"][name]]
    return wrong


def _flat(at_s: Sequence[float], values: Sequence[float], slack: float) -> dict[str, Any]:
    """Return whether one figure stayed flat, with its medians and slope.

    A ``slack`` below 1 is a share of the first median; a larger ``slack`` is an absolute growth.
    """
    quarter = max(1, len(values) // 4)
    first, last = statistics.median(values[:quarter]), statistics.median(values[-quarter:])
    slope = statistics.linear_regression(at_s, values).slope if len(set(at_s)) > 1 else 0.0
    return {
        "first": round(first, 1),
        "last": round(last, 1),
        "most": round(max(values), 1),
        "per_hour": round(3600 * slope, 2),
        "flat": last - first <= (slack * first if slack < 1 else slack),
    }


@asynccontextmanager
async def _running(
    options: SoakOptions, folder: Path, broker: Broker, say: Callable[[str], None]
) -> AsyncIterator[Soak]:
    settings = KafkaSettings(bootstrap=broker.bootstrap, prefix="soak.")
    await topicadmin.create(settings, partitions=PARTITIONS)
    server = None if why_not() else RtspServer({"road": _footage(folder)})
    log, stack = KafkaLog(settings, "soak"), Supervisor([], folder / "logs")
    try:
        if server:
            server.start()
        file = folder / "site.toml"
        file.write_text(tomli_w.dumps(_site(options, server.url("road") if server else "")))
        wanted = site.load(file)
        await configstore.publish(log, wanted.entries())
        argv = ["agent", "run", f"--site={file}", f"--data={folder / 'data'}"]
        await stack.add(ServiceSpec("agent", [sys.executable, "-m", "deploy.cli.app", *argv], settings.to_env()))
        yield Soak(options, broker, stack, log, wanted, server, say)
    finally:
        await stack.stop()
        await log.close()
        if server:
            server.kill()


async def _watch(soak: Soak, samples: list[Sample], stop: asyncio.Event) -> None:
    began_s = time.monotonic()
    while not stop.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), soak.options.every_s)
        try:
            samples.append(_sample(soak.agent(), time.monotonic() - began_s))
        except psutil.Error:  # a child exited meanwhile: the next sample has its successor
            continue


def _sample(agent: psutil.Process, at_s: float) -> Sample:
    children = agent.children(recursive=True)
    return Sample(
        round(at_s, 1),
        agent.memory_full_info().uss / 1e6,
        agent.num_fds(),
        agent.num_threads(),
        len(children),
        sum(child.memory_full_info().uss for child in children) / 1e6,
        sum(child.num_fds() for child in children),
    )


async def _cause_faults(soak: Soak) -> None:
    """Cause faults one after the other until the run's time is over, each kind of fault at least once.

    Each fault ends before the next fault begins.
    """
    options, ends_s = soak.options, time.monotonic() + soak.options.seconds
    actions = [_kill_broker, _kill_child, _remove_and_add_camera]
    if soak.server:
        actions += [_kill_server, _hang_server]
    turn = 0
    while (left_s := ends_s - time.monotonic()) > options.fault_every_s + options.fault_s or turn < len(actions):
        await asyncio.sleep(options.fault_every_s)
        action = actions[turn % len(actions)]
        turn += 1
        soak.say(f"{left_s:.0f} s left: {action.__name__.strip('_').replace('_', ' ')}")
        await action(soak)
        soak.faults.append(action.__name__)
    await asyncio.sleep(max(0.0, ends_s - time.monotonic()))


async def _kill_broker(soak: Soak) -> None:
    await asyncio.to_thread(soak.broker.kill)
    await asyncio.sleep(soak.options.fault_s)
    await asyncio.to_thread(soak.broker.start)


async def _kill_child(soak: Soak) -> None:
    children = soak.agent().children()
    if children:
        children[0].send_signal(signal.SIGKILL)


async def _remove_and_add_camera(soak: Soak) -> None:
    entry = next(camera for camera in soak.wanted.cameras if camera.name == TRAVELLER)
    await configstore.publish(soak.log, [], [entry.key])
    await asyncio.sleep(soak.options.fault_s)
    await configstore.publish(soak.log, [entry])


async def _kill_server(soak: Soak) -> None:
    assert soak.server
    soak.server.kill()
    await asyncio.sleep(soak.options.fault_s)
    await asyncio.to_thread(soak.server.start)


async def _hang_server(soak: Soak) -> None:
    assert soak.server
    soak.server.hang()
    await asyncio.sleep(soak.options.fault_s)
    await _kill_server(soak)


def _footage(folder: Path) -> Path:
    scene = SimulatedScene(SceneConfig(kind="road", fps=10))
    clip = units.encode(folder / "road.mp4", (scene.render(i).image for i in range(400)), 10, "h264")
    return units.units(clip, folder / "road.units")


def _site(options: SoakOptions, url: str) -> dict[str, Any]:
    spool = {"max_bytes": 64 * 2**20}
    rtsp = [{"name": f"rtsp-{n}", "source": url, "spool": spool} for n in range(options.rtsp if url else 0)]
    simulated = [
        {
            "name": f"simulated-{n}",
            "source": f"simulated:{('road', 'yard')[n % 2]}",
            "fps": options.fps,
            "spool": spool,
            "options": {"seed": n},
        }
        for n in range(options.simulated)
    ]
    sensors = [
        {"name": "air", "source": "simulated:temperature", "quantity": "temperature", "unit": "degC"},
        {"name": "cpu", "source": "host:cpu", "quantity": "cpu", "unit": "%", "rate_hz": 1.0},
    ]
    return {"name": "soak", "cameras": [*rtsp, *simulated], "sensors": sensors}


def main(
    hours: Annotated[float, typer.Option(help="Length of the soak, in hours.", min=0.01)] = 2.0,
    fps: Annotated[float, typer.Option(help="Frame rate of each simulated camera.", min=1.0)] = 10.0,
    fault_every_s: Annotated[float, typer.Option(help="Seconds between faults.", min=1.0)] = 240.0,
    keep_it: KeepIt = False,
) -> None:
    """Run an agent for hours, and check that memory and file descriptors stay flat."""
    options = SoakOptions(seconds=3600 * hours, fps=fps, fault_every_s=fault_every_s)
    with tempfile.TemporaryDirectory() as name, Broker(folder=Path(name) / "kafka") as broker:
        report = eventloop.run(run(options, Path(name), broker, log_progress))
    conclude("soak", {**asdict(options), **report}, faults(report), keep_it=keep_it, quiet="samples")


if __name__ == "__main__":
    typer.run(main)
