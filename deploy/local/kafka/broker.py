"""One Apache Kafka node on loopback, in a folder of its own: started, awaited, killed, found again, cleaned."""

from __future__ import annotations

import base64
import json
import os
import random
import shutil
import signal
import subprocess
import time
import uuid
from dataclasses import asdict
from pathlib import Path
from types import TracebackType

from deploy.local import process
from deploy.local.exceptions import BrokerFailed
from deploy.local.kafka.config import (
    HEAP_MB,
    PORT_RANGE,
    Ports,
    choose_ports,
    format_command,
    properties,
    server_command,
)
from deploy.local.kafka.fetch import KAFKA_FILES, fetch, java, locked
from deploy.local.kafka.probe import is_free, serves
from deploy.local.process import Process
from ingest.runtime.clock import Deadline

START_TIMEOUT_S = 60.0
"""Two seconds on an idle machine; a busy one with logs to recover takes longer."""
STOP_TIMEOUT_S = 20.0
"""A clean stop takes one or two seconds."""
_POLL_S = 0.05
_TAIL_LINES = 15
_HOST = "127.0.0.1"


def default_home() -> Path:
    """Return ``$SIGHTLINE_HOME``, or ``.sightline`` in the working folder."""
    return Path(os.environ.get("SIGHTLINE_HOME") or ".sightline").absolute()


class Broker:
    """A broker whose jars are kept under ``home`` and whose data and ports are kept in ``folder``.

    Methods block and may be called from any thread, one at a time. A broker of the same folder that runs already,
    started by whatever process, is attached to instead of started. As a context manager it starts or attaches, and
    stops only what it started.
    """

    def __init__(self, home: Path | None = None, folder: Path | None = None, *, heap_mb: int = HEAP_MB) -> None:
        self.home = home or default_home()
        self.folder = (folder or self.home / "kafka" / "node").absolute()
        self.attached = False
        self._heap_mb = heap_mb

    @property
    def bootstrap(self) -> str:
        """The address for clients, ``127.0.0.1:port``. The same for the folder's whole life."""
        return f"{_HOST}:{self._ports().broker}"

    @property
    def log(self) -> Path:
        """The broker's own log file."""
        return self.folder / "server.log"

    @property
    def process(self) -> Process | None:
        """The running process, None when there is none."""
        try:
            said = Process(**json.loads((self.folder / "pid.json").read_text()))
        except (FileNotFoundError, ValueError):
            return None
        return said if said.alive else None

    @property
    def pid(self) -> int | None:
        """The id of the running process, None when there is none."""
        found = self.process
        return found.pid if found else None

    @property
    def answers(self) -> bool:
        """Tell whether the broker of this folder serves its clients now."""
        return self.pid is not None and serves(_HOST, self._ports().broker)

    def fetch(self) -> Path:
        """Fetch Kafka's jars unless they are there, and return their folder. Raise ToolMissing or FetchFailed."""
        return fetch(self.home)

    def start(self, *, detach: bool = False, timeout_s: float = START_TIMEOUT_S) -> str:
        """Start the broker, or attach to a running one; return its address once it answers.

        It dies with this process unless ``detach``. Raise ToolMissing, FetchFailed or BrokerFailed.
        """
        deadline = Deadline.after(timeout_s)
        libs = self.fetch()
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder / "start.lock"):
            found = self.process
            self.attached = found is not None
            if found is None:
                found = self._launch(libs, detach=detach)
            self._await_answer(found, deadline)
        return self.bootstrap

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> bool:
        """Stop it cleanly, or kill it after the timeout. Return whether it stopped by itself."""
        found = self.process
        return found.end(Deadline.after(timeout_s)) if found else True

    def kill(self) -> None:
        """Kill it with SIGKILL, as a power cut would, and wait until it is gone."""
        found = self.process
        if found:
            found.signal(signal.SIGKILL)
            found.wait(Deadline.after(STOP_TIMEOUT_S))

    def clean(self) -> None:
        """Stop it and remove its data and ports. The jars stay."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Broker:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.attached:
            self.stop()

    def _ports(self) -> Ports:
        path = self.folder / "ports.json"
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            ports = choose_ports(random.randrange(len(PORT_RANGE)), is_free)
            _write(path, asdict(ports))
        return Ports(**json.loads(path.read_text()))

    def _launch(self, libs: Path, *, detach: bool) -> Process:
        ports, config, data = self._ports(), self.folder / "server.properties", self.folder / "data"
        taken = [port for port in (ports.broker, ports.controller) if not is_free(port)]
        if taken:
            problem = f"cannot listen on {taken}: stop what does, or remove {self.folder / 'ports.json'}"
            raise BrokerFailed(problem, str(self.folder), "")
        config.write_text(properties((KAFKA_FILES / "server.properties.template").read_text(), ports, data))
        program, log_config = java(), KAFKA_FILES / "log4j2.xml"
        if not (data / "meta.properties").exists():
            self._format(format_command(program, libs, log_config, self.log, config, _cluster_id()))
        command = server_command(program, libs, log_config, self.log, config, self._heap_mb)
        started = process.spawn(command, os.environ, self.folder / "output.log", detach=detach)
        _write(self.folder / "pid.json", asdict(started))
        return started

    def _format(self, command: list[str]) -> None:
        done = subprocess.run(command, capture_output=True, text=True, timeout=START_TIMEOUT_S, check=False)
        if done.returncode != 0:
            raise BrokerFailed("could not be formatted", str(self.folder), done.stdout + done.stderr)

    def _await_answer(self, started: Process, deadline: Deadline) -> None:
        while not serves(_HOST, self._ports().broker):
            if not started.alive:
                raise BrokerFailed("ended before it answered", str(self.folder), self._tail())
            if deadline.passed:
                if not self.attached:
                    started.end(Deadline.after(STOP_TIMEOUT_S))
                raise BrokerFailed("did not answer in time", str(self.folder), self._tail())
            time.sleep(_POLL_S)

    def _tail(self) -> str:
        files = [path for path in (self.folder / "output.log", self.log) if path.exists()]
        return "\n".join(
            line for path in files for line in path.read_text(errors="replace").splitlines()[-_TAIL_LINES:]
        )


def _cluster_id() -> str:
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")


def _write(path: Path, values: dict[str, int]) -> None:
    part = path.with_suffix(".part")
    part.write_text(json.dumps(values))
    part.rename(path)
