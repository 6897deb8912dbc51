"""Manager of one Apache Kafka broker that listens on loopback and keeps its files in one folder."""

from __future__ import annotations

import base64
import json
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from deploy.local import process
from deploy.local.exceptions import BrokerFailed
from deploy.local.kafka.config import (
    PORT_RANGE,
    Ports,
    choose_ports,
    format_command,
    jvm_command,
    meta_properties,
    properties,
    server_command,
)
from deploy.local.kafka.fetch import KAFKA_FILES, class_archive, feature_checkpoint, fetch, java, locked
from deploy.local.process import Process
from ingest.runtime.clock import Deadline
from ingest.runtime.files import replace_file

START_TIMEOUT_S = 60.0
"""Time limit for a broker to start, in seconds. A broker starts in two seconds on an idle machine, and takes longer
on a busy machine or after a crash."""
STOP_TIMEOUT_S = 20.0
"""Time limit for a clean stop of a broker, in seconds. A clean stop of a broker takes one or two seconds."""
ARCHIVE_TIMEOUT_S = 60.0
"""Time limit for a broker that writes the JVM's archive of parsed classes when it stops, in seconds. On an idle
machine, a stop that writes the archive takes three seconds."""
_POLL_S = 0.05
_TAIL_LINES = 15
_HOST = "127.0.0.1"
_METADATA, _VERSION, _CORRELATION, _CLIENT = 3, 1, 7, b"sightline-probe"
_ANSWER_TIMEOUT_S = 2.0
"""Time limit for the answer to a metadata request, in seconds. A local broker that has started answers within
milliseconds."""


class Broker:
    """Local Kafka broker, whose jars are under ``home``, and whose data and port numbers are in ``folder``.

    ``home`` is by default ``$SIGHTLINE_HOME``, or ``.sightline`` in the working folder.

    Methods block; any thread may call them, but only one thread at a time. If another process already runs a broker
    in this folder, ``start`` attaches to that broker. At the end of a ``with`` statement, a Broker stops its process,
    unless ``start`` attached to a broker that was already running.
    """

    def __init__(self, home: Path | None = None, folder: Path | None = None) -> None:
        self.home = home or Path(os.environ.get("SIGHTLINE_HOME") or ".sightline").absolute()
        self.folder = (folder or self.home / "kafka" / "node").absolute()
        self.log = self.folder / "server.log"
        self.attached = False

    @property
    def bootstrap(self) -> str:
        """Return the address for clients, ``127.0.0.1:port``. The address changes only after ``clean``."""
        return f"{_HOST}:{self._ports().broker}"

    @property
    def process(self) -> Process | None:
        """Return the running broker process, or None if the broker does not run."""
        try:
            recorded = Process(**json.loads((self.folder / "pid.json").read_text()))
        except (FileNotFoundError, ValueError):
            return None
        return recorded if recorded.alive else None

    @property
    def pid(self) -> int | None:
        """Return the process id of the running broker, or None if the broker does not run."""
        found = self.process
        return found.pid if found else None

    @property
    def answers(self) -> bool:
        """Return whether the broker in this folder answers requests now."""
        return self.pid is not None and serves(_HOST, self._ports().broker)

    def fetch(self) -> Path:
        """Download Kafka's jars unless they exist, and return the folder of the jars.

        Raise ToolMissing or FetchFailed.
        """
        return fetch(self.home)

    def archive_classes(self) -> Path:
        """Create the JVM's archive of Kafka's parsed classes unless it exists, and return the archive's path.

        Raise the same errors as ``start``. A broker starts in 1.8 s with the archive and in 3.0 s without the archive
        (2 cores, JDK 17, 2026-11-29). The JVM writes the archive when the broker process exits. A JVM ignores an
        archive that a JVM of another version wrote.
        """
        archive = class_archive(self.home)
        self.fetch()
        with locked(archive.with_suffix(".lock")):
            if not archive.exists():
                part = archive.with_suffix(".part")
                part.unlink(missing_ok=True)  # a killed process may have left an incomplete one
                with TemporaryDirectory() as folder:
                    node = Broker(self.home, Path(folder) / "node")
                    node.start(jvm_options=[f"-XX:ArchiveClassesAtExit={part}"])
                    complete = node.stop(ARCHIVE_TIMEOUT_S)
                if not complete or not part.exists():  # a killed JVM leaves an incomplete archive
                    raise BrokerFailed(
                        "Kafka stopped without writing an archive of its Java classes", str(node.folder), ""
                    )
                part.rename(archive)
        return archive

    def start(
        self, *, detach: bool = False, timeout_s: float = START_TIMEOUT_S, jvm_options: Sequence[str] = ()
    ) -> str:
        """Start the broker, or attach to the broker that already runs in this folder.

        Return the broker's address as soon as the broker answers. Without ``detach``, the kernel kills the broker
        when the calling process dies. Raise ToolMissing, FetchFailed or BrokerFailed.
        """
        deadline = Deadline.after(timeout_s)
        libs = self.fetch()
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder / "start.lock"):
            found = self.process
            self.attached = found is not None
            if found is None:
                found = self._launch(libs, detach, jvm_options)
            self._await_answer(found, deadline, timeout_s)
        return self.bootstrap

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> bool:
        """Send SIGTERM to the broker, and SIGKILL if the broker still runs after the timeout.

        Return whether the broker stopped without SIGKILL.
        """
        found = self.process
        return found.end(Deadline.after(timeout_s)) if found else True

    def kill(self) -> None:
        """Kill the broker with SIGKILL and wait until its process has ended.

        The kill simulates a crash: the broker cannot write its buffered data or close its log files.
        """
        found = self.process
        if found:
            found.signal(signal.SIGKILL)
            found.wait(Deadline.after(STOP_TIMEOUT_S))

    def clean(self) -> None:
        """Stop the broker, and delete its data and the file that records its ports. Keep the downloaded jars."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Broker:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if not self.attached:
            self.stop()

    def _ports(self) -> Ports:
        path = self.folder / "ports.json"
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            ports = choose_ports(random.randrange(len(PORT_RANGE)), is_free)
            _write(path, asdict(ports))
        return Ports(**json.loads(path.read_text()))

    def _launch(self, libs: Path, detach: bool, jvm_options: Sequence[str]) -> Process:
        ports, config, data = self._ports(), self.folder / "server.properties", self.folder / "data"
        taken = [port for port in (ports.broker, ports.controller) if not is_free(port)]
        if taken:
            problem = (
                f"Kafka cannot listen on {taken}: stop the process that does, or remove {self.folder / 'ports.json'}"
            )
            raise BrokerFailed(problem, str(self.folder), "")
        config.write_text(properties((KAFKA_FILES / "server.properties.template").read_text(), ports, data))
        archive = class_archive(self.home)
        options = [f"-XX:SharedArchiveFile={archive}"] if archive.exists() else []
        jvm = partial(jvm_command, java(), libs, KAFKA_FILES / "log4j2.xml", self.log, *options)
        if not (data / "meta.properties").exists():
            self._format(jvm(), config, data)
        command = server_command(jvm(*jvm_options), config)
        started = process.spawn(command, os.environ, self.folder / "output.log", detach=detach)
        _write(self.folder / "pid.json", asdict(started))
        return started

    def _format(self, jvm: list[str], config: Path, data: Path) -> None:
        """Format the data folder. If another node under ``home`` was formatted before, copy its files instead of
        starting a JVM, which takes a second."""
        features, own_features = feature_checkpoint(self.home), data / "bootstrap.checkpoint"
        if features.exists():
            data.mkdir(exist_ok=True)
            shutil.copyfile(features, own_features)
            replace_file(data / "meta.properties", meta_properties(_kafka_id(), _kafka_id()).encode())
            return
        command = format_command(jvm, config, _kafka_id())
        done = subprocess.run(command, capture_output=True, text=True, timeout=START_TIMEOUT_S, check=False)
        if done.returncode != 0:
            raise BrokerFailed("Kafka cannot format its data folder", str(self.folder), done.stdout + done.stderr)
        formatted = own_features.read_bytes()
        with suppress(OSError):  # another user may own ``home``; the next node then starts a JVM too
            replace_file(features, formatted)

    def _await_answer(self, started: Process, deadline: Deadline, timeout_s: float) -> None:
        while not serves(_HOST, self._ports().broker):
            if not started.alive:
                raise BrokerFailed("Kafka ended before it answered a request", str(self.folder), self._tail())
            if deadline.passed:
                if not self.attached:
                    started.end(Deadline.after(STOP_TIMEOUT_S))
                raise BrokerFailed(f"Kafka did not answer within {timeout_s:g} s", str(self.folder), self._tail())
            time.sleep(_POLL_S)

    def _tail(self) -> str:
        files = [path for path in (self.folder / "output.log", self.log) if path.exists()]
        return "\n".join(
            line for path in files for line in path.read_text(errors="replace").splitlines()[-_TAIL_LINES:]
        )


def _write(path: Path, values: dict[str, int]) -> None:
    replace_file(path, json.dumps(values).encode())


def _kafka_id() -> str:
    """Return a random id of a cluster or a data folder, as Kafka writes ids."""
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")


def serves(host: str, port: int) -> bool:
    """Return whether a broker answers a metadata request with a list of at least one broker. Block for at most 2 s.

    The check sends one Metadata request of version 1, as the Kafka protocol guide defines it, on a plain socket.
    """
    header = struct.pack(">hhih", _METADATA, _VERSION, _CORRELATION, len(_CLIENT)) + _CLIENT
    no_topics = struct.pack(">i", 0)
    request = header + no_topics
    try:
        with socket.create_connection((host, port), timeout=_ANSWER_TIMEOUT_S) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            with connection.makefile("rb") as answer:
                _size, correlation, brokers = struct.unpack(">iii", answer.read(12))
    except (OSError, struct.error):
        return False
    return bool(correlation == _CORRELATION and brokers > 0)


def is_free(port: int) -> bool:
    """Return whether the port is free to listen on at the loopback address."""
    with socket.socket() as candidate:
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            candidate.bind((_HOST, port))
        except OSError:
            return False
    return True
