"""Starts, loads and stops the compared servers: the engine node, LitServe and Ray Serve."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.pipeline import CAMERAS, PipelineCase, publish_site
from benchmarks.report import ROOT
from deploy.local.kafka.broker import Broker
from deploy.local.kafka.config import LONG_RUNNING
from deploy.local.stack import ONE_THREAD
from ingest.kafka import topicadmin
from ingest.kafka.settings import KafkaSettings
from ingest.runtime.clock import Deadline

PEERS = ROOT / ".sightline" / "peers"
"""Folder of the environments of LitServe and Ray Serve, which ``setup.sh`` creates."""
HERE = Path(__file__).parent
RAY_ENV = {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1", "RAY_worker_niceness": "0"}
"""Environment variables that optimise Ray for throughput. Without ``RAY_worker_niceness``, Ray's workers would have a
lower priority than the workers of the other systems."""
START_S = 300.0
"""Maximum time for a server to start, in seconds."""
STOP_S = 10.0
DRAIN_S = 5.0
"""Maximum time that a client waits for responses after the client's last request, in seconds."""


@dataclass(frozen=True)
class OpenLoad:
    """A load of requests at random times, ``rate`` requests per second on average (Poisson), which do not wait for
    earlier responses.

    ``pictures`` is a msgpack file with the frame of each request: width and height in px, and the JPEG bytes.
    """

    rate: float
    seconds: float
    seed: int
    pictures: Path

    @property
    def arguments(self) -> list[str]:
        """Command line arguments of a client for this load."""
        return [
            f"--rate={self.rate}",
            f"--seconds={self.seconds}",
            f"--seed={self.seed}",
            f"--pictures={self.pictures}",
            f"--drain-s={DRAIN_S}",
        ]


@dataclass(frozen=True)
class ServerSetting:
    """Settings of a server.

    ``batch`` is the maximum batch size and ``wait_s`` the maximum wait for a batch. Batch size and wait are 0 for the
    engine node, which chooses its own values.
    """

    system: str
    workers: int
    batch: int = 0
    wait_s: float = 0.0

    @property
    def name(self) -> str:
        """Name for people."""
        batching = f", batches up to {self.batch}, wait {1000 * self.wait_s:.0f} ms" if self.batch else ""
        return f"{self.system}, {self.workers} workers{batching}"


class RunningServer(ABC):
    """A server that is running.

    ``pids`` maps the names of the server's processes to their ids.
    """

    def __init__(self, pids: Mapping[str, int]) -> None:
        self.pids = pids

    @abstractmethod
    async def drive(self, load: OpenLoad) -> list[float | None]:
        """Send a load, and return each request's latency in seconds, or None without a valid response."""


class RunningNode(RunningServer):
    """A running engine node and its broker."""

    def __init__(self, case: PipelineCase, settings: KafkaSettings, pids: Mapping[str, int]) -> None:
        super().__init__(pids)
        self._case, self._settings = case, settings

    async def drive(self, load: OpenLoad) -> list[float | None]:
        """Send a load, and return each request's latency in seconds, or None without a valid response."""
        pipeline = self._case.pipeline.model_dump_json()
        where = [f"--bootstrap={self._settings.bootstrap}", f"--prefix={self._settings.prefix}"]
        return await _client(
            [
                sys.executable,
                "-m",
                "benchmarks.serving.goodput.kafkaclient",
                *where,
                f"--pipeline={pipeline}",
                *load.arguments,
            ]
        )


class RunningPeer(RunningServer):
    """A running HTTP server of LitServe or Ray Serve."""

    def __init__(self, system: str, port: int, pid: int) -> None:
        super().__init__({"server": pid})
        self._system, self._port = system, port

    async def drive(self, load: OpenLoad) -> list[float | None]:
        """Send a load, and return each request's latency in seconds, or None without a valid response."""
        form = ["--form"] if self._system == "litserve" else []
        url = f"--url=http://127.0.0.1:{self._port}/predict"
        return await _client([_python(self._system), str(HERE / "httpclient.py"), url, *form, *load.arguments])


@contextlib.asynccontextmanager
async def serving(
    setting: ServerSetting, case: PipelineCase, wait_s: float, queue: int, folder: Path
) -> AsyncIterator[RunningServer]:
    """Run a server, and yield the server once it answers. The server's output goes to files in ``folder``.

    LitServe refuses requests that have waited ``wait_s``, and Ray Serve refuses requests while ``queue`` requests
    wait. The engine node takes its limit of the waiting time from the pipeline's setting ``freshness_s``.
    """
    if setting.system == "sightline":
        async with _node(setting, case, folder) as node:
            yield node
        return
    port = _free_port()
    argv = [
        _python(setting.system),
        str(HERE / ("litserveapp.py" if setting.system == "litserve" else "rayapp.py")),
        f"--model={case.model.folder}",
        f"--pipeline={case.pipeline.model_dump_json()}",
        f"--port={port}",
        f"--workers={setting.workers}",
        f"--batch={setting.batch}",
        f"--wait-s={setting.wait_s}",
        f"--timeout-s={wait_s}" if setting.system == "litserve" else f"--queue={queue}",
    ]
    async with _process(argv, folder / f"{setting.system}.log", RAY_ENV) as pid:
        await _until_answers(
            f"http://127.0.0.1:{port}/" + ("health" if setting.system == "litserve" else "-/healthz")
        )
        yield RunningPeer(setting.system, port, pid)


@contextlib.asynccontextmanager
async def _node(setting: ServerSetting, case: PipelineCase, folder: Path) -> AsyncIterator[RunningServer]:
    broker = Broker(folder=folder / "kafka")
    await asyncio.to_thread(broker.start, jvm_options=LONG_RUNNING)
    try:
        settings = KafkaSettings(bootstrap=broker.bootstrap, prefix="goodput.")
        await topicadmin.create(settings, partitions=CAMERAS)
        await publish_site(settings, case.pipeline)
        argv = [sys.executable, "-m", "deploy.cli.app", "engine", f"--models={case.repository.root}"]
        output = folder / "sightline.log"
        async with _process([*argv, f"--instances={setting.workers}"], output, settings.to_env()) as pid:
            deadline = Deadline.after(START_S)
            while output.read_text().count("partitions_assigned") < 1:
                assert not deadline.passed, f"no partitions within {START_S:.0f} s: {output.read_text()[-500:]}"
                await asyncio.sleep(0.1)
            yield RunningNode(case, settings, {"server": pid, "broker": broker.pid or 0})
    finally:
        await asyncio.to_thread(broker.clean)


@contextlib.asynccontextmanager
async def _process(argv: Sequence[str], output: Path, env: dict[str, str]) -> AsyncIterator[int]:
    """Run a process, yield its id, and kill its whole process group at the end."""
    with output.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdout=file,
            stderr=file,
            env={**os.environ, **ONE_THREAD, **env, "PYTHONPATH": str(ROOT)},
            start_new_session=True,
            cwd=output.parent,
        )
    try:
        yield process.pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), STOP_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def _until_answers(url: str) -> None:
    def answers() -> bool:
        try:
            with urllib.request.urlopen(url, timeout=2.0) as response:  # noqa: S310  (an address on loopback)
                return bool(response.status == 200)
        except (OSError, urllib.error.URLError):
            return False

    deadline = Deadline.after(START_S)
    while not await asyncio.to_thread(answers):
        assert not deadline.passed, f"{url} does not answer within {START_S:.0f} s"
        await asyncio.sleep(0.2)


async def _client(argv: Sequence[str]) -> list[float | None]:
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **ONE_THREAD, "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
    )
    output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()[-2000:]
    latencies: list[float | None] = json.loads(output.splitlines()[-1])
    return latencies


def _python(system: str) -> str:
    return str(PEERS / system / "bin" / "python")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
