"""Real MQTT broker for one test, on a free loopback port: open, with a password, or with TLS."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiomqtt
import pytest

from ingest.runtime.clock import Deadline
from ingest.runtime.tether import tethered
from tests.peers.certificates import self_signed

USER, PASSWORD = "agent", "a secret of this test"


class Mosquitto:
    """MQTT broker that a test can kill and restart with the same port and files."""

    def __init__(self, folder: Path, *, password: bool = False, tls: bool = False) -> None:
        self.program = _found("mosquitto")
        self.folder, self.port = folder, free_port()
        self.password_file, self.ca_file = folder / "password", folder / "ca.pem"
        self._process: subprocess.Popen[bytes] | None = None
        lines = [f"listener {self.port} 127.0.0.1", f"user {getpass.getuser()}", "max_queued_messages 10000"]
        lines += self._with_password() if password else ["allow_anonymous true"]
        lines += self._with_tls() if tls else []
        (folder / "mosquitto.conf").write_text("\n".join(lines) + "\n")

    async def start(self) -> None:
        """Start the broker and wait until it accepts connections."""
        command = [self.program, "-c", str(self.folder / "mosquitto.conf")]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(tethered(command), stdout=log, stderr=log)  # noqa: ASYNC220
        deadline = Deadline.after(60.0)
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.close()
                return
            assert not deadline.passed, (self.folder / "log").read_text()
            await asyncio.sleep(0.02)

    def kill(self) -> None:
        """Kill the broker without closing its connections."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    async def publish(self, topic: str, *payloads: str | bytes, retain: bool = False) -> None:
        """Publish payloads at QoS 1 without a login."""
        async with aiomqtt.Client("127.0.0.1", self.port) as client:
            for payload in payloads:
                await client.publish(topic, payload, qos=1, retain=retain)

    def _with_password(self) -> list[str]:
        self.password_file.write_text(PASSWORD + "\n")
        users = self.folder / "users"
        subprocess.run(
            [_found("mosquitto_passwd"), "-b", "-c", users, USER, PASSWORD], check=True, capture_output=True
        )
        return ["allow_anonymous false", f"password_file {users}"]

    def _with_tls(self) -> list[str]:
        self.ca_file, key_file = self_signed(self.folder)
        return [f"certfile {self.ca_file}", f"keyfile {key_file}"]


@contextlib.asynccontextmanager
async def serving(folder: Path, **how: Any) -> AsyncIterator[Mosquitto]:
    """Run a broker for the time of the context. Skip the test if mosquitto is not installed."""
    broker = Mosquitto(folder, **how)
    await broker.start()
    try:
        yield broker
    finally:
        broker.kill()


def _found(program: str) -> str:
    """Return a program's path. Debian installs brokers outside of the users' PATH."""
    path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/sbin")
    if path is None:
        pytest.skip(f"no {program} on this machine: `make peers` installs it")
    return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
