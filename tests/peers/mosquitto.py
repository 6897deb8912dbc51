"""A real MQTT broker of a test's own, on a free loopback port: open, with a password, or with TLS."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import getpass
import ipaddress
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ingest.runtime.clock import Deadline
from ingest.runtime.tether import tethered

USER, PASSWORD = "agent", "a secret of this test"


class Mosquitto:
    """A broker that a test may kill and start again: its port and its files stay."""

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
        """Start it, and wait until it takes connections."""
        command = [self.program, "-c", str(self.folder / "mosquitto.conf")]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(tethered(command), stdout=log, stderr=log)  # noqa: ASYNC220
        deadline = Deadline.after(10.0)
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.close()
                return
            assert not deadline.passed, (self.folder / "log").read_text()
            await asyncio.sleep(0.02)

    def kill(self) -> None:
        """End it without a word to its clients."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    async def publish(self, topic: str, *payloads: str | bytes, retain: bool = False) -> None:
        """Publish at QoS 1, as a device on an open broker."""
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
        cert, key = _certificate()
        self.ca_file.write_bytes(cert)
        (self.folder / "key.pem").write_bytes(key)
        return [f"certfile {self.ca_file}", f"keyfile {self.folder / 'key.pem'}"]


@contextlib.asynccontextmanager
async def serving(folder: Path, **how: Any) -> AsyncIterator[Mosquitto]:
    """Start a broker, and end it. Skip the test where there is none."""
    broker = Mosquitto(folder, **how)
    await broker.start()
    try:
        yield broker
    finally:
        broker.kill()


def _found(program: str) -> str:
    """Return a program's path. Debian keeps brokers where users do not look."""
    path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/sbin")
    if path is None:
        pytest.skip(f"no {program} on this machine: `make peers` installs it")
    return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _certificate() -> tuple[bytes, bytes]:
    """Return a certificate of 127.0.0.1 that vouches for itself, and its key, in PEM."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = dt.datetime.now(dt.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    cert = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return cert.public_bytes(pem), private
