"""Real Kafka broker with authentication: TLS, mutual TLS, and SASL over TLS, each on its own listener."""

from __future__ import annotations

import base64
import os
import random
import subprocess
import time
import uuid
from pathlib import Path
from string import Template

from deploy.local import process
from deploy.local.kafka.broker import STOP_TIMEOUT_S, Broker, is_free
from deploy.local.kafka.config import PORT_RANGE, format_command, jvm_command, server_command
from deploy.local.kafka.fetch import KAFKA_FILES, class_archive, java
from ingest.contract.codec import MAX_RECORD_BYTES
from ingest.runtime.clock import Deadline
from tests.peers.certificates import Authority

__all__ = ["SecuredBroker"]

START_S = 80.0
"""Time limit for each of the two steps of a start, in seconds. Both are done within pytest's limit of 180 s."""
USER, PASSWORD = "agent", "correct horse"
_LISTENERS = ("TLS", "MUTUAL", "SASL", "CONTROLLER")

_SECURITY = """
listeners={listeners}
advertised.listeners={advertised}
listener.security.protocol.map=TLS:SSL,MUTUAL:SSL,SASL:SASL_SSL,CONTROLLER:SSL
inter.broker.listener.name=MUTUAL
controller.listener.names=CONTROLLER
controller.quorum.voters=1@localhost:{controller}

ssl.keystore.type=PEM
ssl.keystore.location={keystore}
ssl.truststore.type=PEM
ssl.truststore.location={truststore}
listener.name.mutual.ssl.client.auth=required
listener.name.controller.ssl.client.auth=required

listener.name.sasl.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
listener.name.sasl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \\
  user_{user}="{password}";
listener.name.sasl.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
"""


class SecuredBroker:
    """Kafka broker with security. The folder holds its data, its keys and its clients' keys."""

    def __init__(self, home: Path, folder: Path) -> None:
        self._home, self._folder = home, folder
        self.authority = Authority(folder)
        self.client = self.authority.sign("client")
        self._server = self.authority.sign("server")
        ports = iter(random.sample(PORT_RANGE, len(PORT_RANGE)))
        self._ports = {name: next(port for port in ports if is_free(port)) for name in _LISTENERS}
        self._process: process.Process | None = None

    def address(self, listener: str) -> str:
        """Return the address of a listener: ``TLS``, ``MUTUAL`` or ``SASL``."""
        return f"localhost:{self._ports[listener]}"

    def start(self) -> None:
        """Format the storage with its users, start the broker, and wait until it is ready."""
        config, log = self._folder / "server.properties", self._folder / "server.log"
        config.write_text(self._properties())
        archive = f"-XX:SharedArchiveFile={class_archive(self._home)}"
        jvm = jvm_command(java(), Broker(self._home).fetch(), KAFKA_FILES / "log4j2.xml", log, archive)
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        scram = [f"--add-scram={m}=[name={USER},password={PASSWORD}]" for m in ("SCRAM-SHA-256", "SCRAM-SHA-512")]
        command = [*format_command(jvm, config, cluster), *scram]
        subprocess.run(command, check=True, capture_output=True, timeout=START_S)
        command = server_command(jvm, config)
        self._process = process.spawn(command, os.environ, self._folder / "output.log", detach=False)
        deadline = Deadline.after(START_S)
        while "Kafka Server started" not in log.read_text():
            assert self._process.alive, (self._folder / "output.log").read_text()
            assert not deadline.passed, "the broker did not start in time"
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop the broker, or kill it after the stop timeout."""
        if self._process:
            self._process.end(Deadline.after(STOP_TIMEOUT_S))

    def _properties(self) -> str:
        """Return the local broker's properties with the secured listeners instead of the plain listeners."""
        template = (KAFKA_FILES / "server.properties.template").read_text()
        plain = Template(template).substitute(
            broker_port=0,
            controller_port=0,
            data=self._folder / "data",
            max_message_bytes=MAX_RECORD_BYTES + 64 * 1024,
            max_request_bytes=100 * 1024 * 1024,
        )
        replaced = ("listeners", "advertised.listeners", "controller.", "inter.broker.")
        kept = [line for line in plain.splitlines() if not line.startswith(replaced)]
        keystore = self._folder / "keystore.pem"
        keystore.write_bytes(self._server.key.read_bytes() + self._server.certificate.read_bytes())
        at = {name: f"{name}://localhost:{port}" for name, port in self._ports.items()}
        security = _SECURITY.format(
            listeners=",".join(at.values()),
            advertised=",".join(at[name] for name in _LISTENERS if name != "CONTROLLER"),
            controller=self._ports["CONTROLLER"],
            keystore=keystore,
            truststore=self.authority.file,
            user=USER,
            password=PASSWORD,
        )
        return "\n".join(kept) + security
