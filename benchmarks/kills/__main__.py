"""Kills an agent a hundred times, and checks for lost frames, for duplicates, and for frames lost from memory.

``python -m benchmarks.kills`` runs one agent with an RTSP camera, simulated cameras and a sensor, on a broker that is
also killed at times. SIGKILL ends the agent, or one of its capture processes, at random moments. After each kill, the
benchmark copies the spool. The spool is unencrypted for the first third of the kills, then encrypted with one key,
and then with another key. ``benchmarks.kills.judge`` judges the evidence. The chaos tests run this benchmark with a
few kills.
"""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import psutil
import tomli_w
import typer

from benchmarks.kills.evidence import Epoch, copy_dead, copy_living, read_topics, witnessed
from benchmarks.kills.judge import Kill, KillEvidence, judge
from benchmarks.report import ROOT, KeepIt, conclude, log_progress
from deploy.local.kafka.broker import Broker
from edge_agent.sources.simulated.config import SceneConfig
from edge_agent.sources.simulated.scene import SimulatedScene
from edge_agent.spool.seal import KEY_BYTES, load_seal
from ingest.kafka import topicadmin
from ingest.kafka.kafkalog import KafkaLog
from ingest.kafka.settings import KafkaSettings
from ingest.ledger.auditor import audit
from ingest.runtime import eventloop
from ingest.runtime.clock import Deadline
from ingest.runtime.tether import tethered
from tests.peers import units
from tests.peers.rtsp import RtspServer, why_not

WITNESS = Path(__file__).parent / "witness"
PARTITIONS = 4
CHILD = "edge_agent.camera.child"
SENSOR = "cabinet"
EARLY = 0.15
"""Share of kills that hit an agent while it starts, or while it closes the epochs (capture runs) that the previous
kill interrupted."""
CAPTURE = 0.2
"""Share of kills that hit a capture process."""
STOPPING = 0.1
"""Share of kills that hit a stopping agent while the agent closes its epochs (capture runs) or sends its spool."""
SLOW = 0.25
"""Share of kills that happen while the broker is paused. A paused broker receives records without acknowledging
them."""
BEFORE_S = 0.3
"""Maximum time from the agent's stop request or the broker's pause to the kill, in seconds."""
STOP_S = 60.0
"""Maximum time for a start or a clean stop, in seconds."""


@dataclass(frozen=True)
class KillOptions:
    """Options of a run.

    In every ``cycle`` kills, the broker is down for a quarter of the kills, after the first third. ``stored`` is the
    number of stored frames after which an agent counts as started.
    """

    kills: int = 100
    seed: int = 1
    cycle: int = 12
    within_s: float = 3.0
    settle_s: float = 5.0
    stored: int = 5


@dataclass(frozen=True)
class Step:
    """One planned kill.

    ``after_s`` is the time from the first frames in the spool to the kill; if ``early``, the time from the agent's
    start.

    ``target`` is ``agent``, ``capture`` for one of the agent's capture processes, or ``stopping`` for an agent that
    is asked to stop ``before_s`` before the kill. ``broker`` is ``kill`` or ``start`` if the broker is killed or
    started before the agent is killed, else empty. With ``slow``, the broker is paused ``before_s`` before the kill,
    and stays paused until the agent is dead.
    """

    target: str
    after_s: float
    before_s: float
    early: bool
    broker: str
    slow: bool


def plan(options: KillOptions) -> list[Step]:
    """Return the planned kills. The same seed gives the same plan."""
    chance, gone_at, back_at = random.Random(options.seed), options.cycle // 3, options.cycle * 7 // 12
    steps = []
    for number in range(options.kills):
        target = chance.choices(("capture", "stopping", "agent"), (CAPTURE, STOPPING, 1.0 - CAPTURE - STOPPING))[0]
        early = chance.random() < EARLY and number > 0 and target == "agent"
        broker = {gone_at: "kill", back_at: "start"}.get(number % options.cycle, "")
        after_s, before_s = chance.uniform(0.0, options.within_s), chance.uniform(0.0, BEFORE_S)
        slow = chance.random() < SLOW and target == "agent"
        steps.append(Step(target, after_s, before_s, early, broker, slow))
    return steps


class KilledAgent:
    """An agent process. The module in ``benchmarks/witness`` logs events inside the agent and its child processes."""

    def __init__(self, argv: list[str], env: dict[str, str], folder: Path) -> None:
        self._argv, self._log = argv, folder / "agent.log"
        self.witness = folder / "witness"
        self.witness.mkdir()
        path = os.pathsep.join([str(WITNESS), str(ROOT)])
        self._env = {**os.environ, **env, "PYTHONPATH": path, "SIGHTLINE_WITNESS": str(self.witness)}
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """The agent's process id. Raise AssertionError if the agent exited by itself."""
        assert self._process is not None, "not started"
        assert self._process.returncode is None, f"the agent ended by itself with {self._process.returncode}"
        return self._process.pid

    async def start(self) -> None:
        """Start the process."""
        with self._log.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                *tethered(self._argv), stdout=output, stderr=output, env=self._env, start_new_session=True
            )

    def request_stop(self) -> None:
        """Ask the agent to stop."""
        os.kill(self.pid, signal.SIGTERM)

    async def kill(self) -> bool:
        """Kill the agent, and wait for its end. Return False if the agent had already stopped cleanly."""
        assert self._process is not None, "not started"
        if self._process.returncode != 0:
            os.kill(self.pid, signal.SIGKILL)
        return await self._process.wait() != 0

    async def stop(self) -> bool:
        """Ask the agent to stop, and kill it after ``STOP_S``. Return whether the agent stopped cleanly."""
        if self._process is None or self._process.returncode is not None:
            return False
        self.request_stop()
        try:
            return await asyncio.wait_for(self._process.wait(), STOP_S) == 0
        except TimeoutError:
            await self.kill()
            return False

    @property
    def promised(self) -> int:
        """Number of frames stored in the spool since the agent's start."""
        lines = self._lines(self.pid).splitlines()
        return sum(line.startswith("promise ") and f" {SENSOR} " not in line for line in lines)

    @property
    def captures(self) -> list[int]:
        """Process ids of the capture processes that have captured a frame."""
        children = [c for c in psutil.Process(self.pid).children(recursive=True) if CHILD in " ".join(c.cmdline())]
        return [child.pid for child in children if self._lines(child.pid)]

    def epoch_of(self, capture: int) -> Epoch:
        """Return the camera and epoch (capture run) of a capture process."""
        _, name, epoch, *_ = self._lines(capture).split(maxsplit=4)
        return name, int(epoch)

    def _lines(self, pid: int) -> str:
        """Return the lines that the module ``witness`` wrote in the newest process with this process id."""
        files = sorted(self.witness.glob(f"{pid}-*"), key=lambda file: int(file.name.partition("-")[2]))
        return files[-1].read_text() if files else ""


class Killing:
    """One benchmark run: executes the planned kills, and gathers the evidence."""

    def __init__(
        self, options: KillOptions, folder: Path, broker: Broker, rtsp: str, say: Callable[[str], None]
    ) -> None:
        self._options, self._folder, self._broker, self._rtsp, self._say = options, folder, broker, rtsp, say
        self._settings = KafkaSettings(bootstrap=broker.bootstrap, prefix="kills.")
        self._spool = folder / "data" / "spool.db"
        self._keys = [folder / f"{number}.key" for number in range(2)]
        self._chance = random.Random(options.seed)
        argv = ["agent", "run", f"--site={folder / 'site.toml'}", f"--data={folder / 'data'}"]
        self._agent = KilledAgent([sys.executable, "-m", "deploy.cli.app", *argv], self._settings.to_env(), folder)
        self._kills: list[Kill] = []

    async def run(self) -> dict[str, Any]:
        """Execute the planned kills, stop the agent, and return the report."""
        await topicadmin.create(self._settings, partitions=PARTITIONS)
        for key in self._keys:
            key.write_bytes(secrets.token_bytes(KEY_BYTES))
        steps = plan(self._options)
        try:
            for number, step in enumerate(steps):
                await self._step(number, step)
            await asyncio.to_thread(self._broker.start)
            await self._up(len(steps) - 1)
            await self._flows()
            await asyncio.sleep(self._options.settle_s)
        finally:
            stopped = await self._agent.stop()
        return await self._judge([] if stopped else ["the agent did not stop cleanly"])

    async def _step(self, number: int, step: Step) -> None:
        await self._up(number)
        if step.broker:
            await asyncio.to_thread(self._broker.kill if step.broker == "kill" else self._broker.start)
        if not step.early:
            await self._flows()
        await asyncio.sleep(step.after_s)
        killing = self._kill_capture(number) if step.target == "capture" else self._kill_agent(number, step)
        self._kills.append(kill := await killing)
        rows, lost = len(kill.copy.rows), ", ".join(name for name, _ in kill.open) or "nothing"
        self._say(f"kill {number}: {kill.target}, {rows} rows in the spool, interrupted {lost}")

    async def _up(self, number: int) -> None:
        """Start the agent if the last kill ended it."""
        if not self._kills or self._kills[-1].target != "capture":
            self._configure(number)
            await self._agent.start()

    async def _kill_agent(self, number: int, step: Step) -> Kill:
        broker = self._broker.process
        if step.target == "stopping":
            self._agent.request_stop()
        if step.slow and broker:
            broker.signal(signal.SIGSTOP)
        if step.target == "stopping" or step.slow:
            await asyncio.sleep(step.before_s)
        at_ns = time.monotonic_ns()
        killed = await self._agent.kill()
        copy = await asyncio.to_thread(copy_dead, *self._copying(number))
        if broker:
            broker.signal(signal.SIGCONT)
        return Kill(number, step.target if killed else "ended", at_ns, broker is None, copy, copy.open)

    async def _kill_capture(self, number: int) -> Kill:
        deadline = Deadline.after(STOP_S)
        while not (captures := self._agent.captures):
            assert not deadline.passed, "no capture process has captured a frame"
            await asyncio.sleep(0.05)
        capture = self._chance.choice(captures)
        at_ns = time.monotonic_ns()
        os.kill(capture, signal.SIGKILL)
        copy = await asyncio.to_thread(copy_living, *self._copying(number))
        return Kill(number, "capture", at_ns, self._broker.pid is None, copy, [self._agent.epoch_of(capture)])

    def _copying(self, number: int) -> tuple[Path, Path, Any]:
        return self._spool, self._folder / f"copy-{number}.db", load_seal(self._keys[0], self._keys[1:])

    async def _flows(self) -> None:
        deadline = Deadline.after(STOP_S)
        while self._agent.promised < self._options.stored:
            assert not deadline.passed, "no frames are promised in time"
            await asyncio.sleep(0.05)

    def _configure(self, number: int) -> None:
        """Write the site file for this kill. The spool has no encryption key, the first key or the second key."""
        third = number * 3 // self._options.kills
        disk = {"key_file": str(self._keys[third - 1])} if third else {}
        previous = {"previous_key_files": [str(self._keys[0])]} if third == 2 else {}
        site = _site(self._rtsp) | {"spool": {**disk, **previous}}
        (self._folder / "site.toml").write_text(tomli_w.dumps(site))

    async def _judge(self, faults: list[str]) -> dict[str, Any]:
        corrupt = [path.name for path in self._spool.parent.glob("*.corrupt-*")]
        faults += [f"{name} was set aside" for name in corrupt]
        left = await asyncio.to_thread(copy_dead, *self._copying(self._options.kills))
        async with KafkaLog(self._settings, "kills") as log:
            topics, balance = await read_topics(log), await audit(log, wait_s=0)
        numbers = witnessed(self._agent.witness.iterdir())
        return judge(KillEvidence(self._kills, numbers, topics, left, balance, frozenset([SENSOR]), faults))


async def run(
    options: KillOptions, folder: Path, broker: Broker, rtsp: str, say: Callable[[str], None]
) -> dict[str, Any]:
    """Run the kills and return the report. ``rtsp`` is the URL of an RTSP stream."""
    return await Killing(options, folder, broker, rtsp, say).run()


def footage(folder: Path) -> Path:
    """Write a video file for the RTSP server, six seconds of a road, and return its path."""
    scene = SimulatedScene(SceneConfig(kind="road", width=320, height=180, fps=10.0))
    clip = units.encode(folder / "road.mp4", (scene.render(i).image for i in range(60)), 10)
    return units.units(clip, folder / "road.units")


def _site(rtsp: str) -> dict[str, Any]:
    """Return a site: one RTSP camera, two simulated ungated cameras, one gated camera, and a sensor.

    The spool of camera ``belt`` is too small for an outage, so that some of the camera's frames expire.
    """
    every = {"gate": {"motion": False}, "width": 320, "height": 180}
    young = {"spool": {"late_after_s": 2.0}}
    return {
        "name": "kills",
        "cameras": [
            {"name": "street", "source": rtsp, **every, **young},
            {"name": "road", "source": "simulated:road", "fps": 15.0, **every, **young},
            {"name": "belt", "source": "simulated:conveyor", "fps": 15.0, **every}
            | {"spool": {"late_after_s": 2.0, "max_bytes": 2**20}},
            {"name": "yard", "source": "simulated:yard", "fps": 10.0, "width": 320, "height": 180, **young},
        ],
        "sensors": [
            {
                "name": SENSOR,
                "source": "simulated:temperature",
                "quantity": "temperature",
                "unit": "Cel",
                "rate_hz": 50.0,
                "max_delay_s": 0.5,
            }
        ],
    }


def main(
    kills: Annotated[int, typer.Option(min=1)] = 100,
    seed: Annotated[int, typer.Option(help="Seed of the plan: targets and times of the kills.")] = 1,
    cycle: Annotated[int, typer.Option(help="Kills from one outage of the broker to the next.", min=3)] = 12,
    keep_it: KeepIt = False,
) -> None:
    """Kill an agent repeatedly, and check that it delivers each record of its spool once."""
    reason = why_not()
    if reason:
        raise typer.BadParameter(f"no RTSP server: {reason}")
    options, began_s = KillOptions(kills, seed, cycle), time.monotonic()
    with tempfile.TemporaryDirectory() as name, Broker(folder=Path(name) / "kafka") as broker:
        server = RtspServer({"road": footage(Path(name))})
        server.start()
        try:
            work = run(options, Path(name), broker, server.url("road"), log_progress)
            report = eventloop.run(work)
        finally:
            server.kill()
    ran = {**asdict(options), "ran_s": round(time.monotonic() - began_s), "killed": report.pop("kills")}
    conclude("kills", {**ran, **report}, report["faults"], keep_it=keep_it)


if __name__ == "__main__":
    typer.run(main)
