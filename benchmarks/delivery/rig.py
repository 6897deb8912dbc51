"""A dispatcher process on topics of its own, and the alerts and receipts on them."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import os
import signal
import ssl
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from benchmarks.delivery.alerts import alert_record, numbered_alert
from deploy.local.supervisor import ServiceSpec, Supervisor
from ingest.contract.codec import decode_json
from ingest.contract.records import Delivery
from ingest.contract.topics import DELIVERIES
from ingest.kafka import topicadmin
from ingest.kafka.kafkalog import KafkaLog
from ingest.kafka.settings import KafkaSettings
from ingest.runtime.clock import Deadline
from ingest.site import ReceiverConfig
from ingest.site.topic.store import publish
from stream.delivery.clients.signature import new_secret

PARTITIONS = 4
DISPATCH = "dispatch"
POLL_S = 5.0
"""Pause in seconds between two reads of all receipts, so that the reads take little of the machine."""
BATCH = 500
"""Number of alerts that are written to Kafka concurrently."""


class DispatchRig:
    """The topics of one run, and the dispatcher that delivers their alerts."""

    def __init__(self, settings: KafkaSettings, folder: Path, log: KafkaLog) -> None:
        self.settings, self.folder, self.log = settings, folder, log
        self.secret = folder / "secret"
        self.secret.write_text(new_secret(ed25519=False)[0])
        argv = [sys.executable, "-m", "deploy.cli.app", DISPATCH]
        self._stack = Supervisor([ServiceSpec(name=DISPATCH, argv=argv, env=settings.to_env())], folder / "logs")
        self.kills = 0

    @classmethod
    @asynccontextmanager
    async def on(cls, bootstrap: str, name: str, folder: Path) -> AsyncIterator[DispatchRig]:
        """Create the topics of a run, and yield its rig."""
        settings = KafkaSettings(bootstrap=bootstrap, prefix=f"{name}.")
        (folder / name).mkdir(parents=True)
        await topicadmin.create(settings, partitions=PARTITIONS)
        async with KafkaLog(settings, f"delivery-{name}") as log:
            yield cls(settings, folder / name, log)

    def receiver(self, name: str, port: int, **fields: object) -> ReceiverConfig:
        """Return the configuration of a receiver on this machine."""
        usual = {"url": f"http://127.0.0.1:{port}/", "secret_file": self.secret, "allow_private": True}
        return ReceiverConfig.model_validate({"name": name, **usual, **fields})

    @asynccontextmanager
    async def dispatching(self, receivers: Sequence[ReceiverConfig]) -> AsyncIterator[None]:
        """Run the dispatcher during the ``async with`` block."""
        await publish(self.log, receivers)
        async with self._stack:
            yield

    def kill(self) -> None:
        """Kill the dispatcher, which is then started again. Do nothing if the dispatcher does not run."""
        pid = self._stack.pid(DISPATCH)
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
            self.kills += 1

    async def raise_alerts(self, numbers: range) -> list[str]:
        """Write alerts, whose capture time is the present time, and return their ids."""
        alerts = []
        for first in range(numbers.start, numbers.stop, BATCH):
            batch = [
                numbered_alert("delivery", number, time.time_ns())
                for number in range(first, min(first + BATCH, numbers.stop))
            ]
            await asyncio.gather(*(self.log.produce(alert_record(alert, PARTITIONS)) for alert in batch))
            alerts += [alert.id for alert in batch]
        return alerts

    async def receipts(self) -> list[Delivery]:
        """Return all receipts, in the order of their partitions."""
        return [
            decode_json(Delivery, record.value)
            for partition, end in (await self.log.ends(DELIVERIES)).items()
            async for record in self.log.read(DELIVERIES, partition, 0, end)
        ]

    async def until(self, done: Callable[[list[Delivery]], bool], wait_s: float, goal: str) -> list[Delivery]:
        """Wait until ``done`` holds for the receipts, and return the receipts."""
        deadline = Deadline.after(wait_s)
        while not done(receipts := await self.receipts()):
            assert not deadline.passed, f"{goal} was not reached within {wait_s:.0f} s: {len(receipts)} receipts"
            await asyncio.sleep(POLL_S)
        return receipts


def untrusted_tls(folder: Path) -> ssl.SSLContext:
    """Return the TLS settings of a server with a certificate that nobody trusts."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    place = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(place, critical=False)
        .sign(key, hashes.SHA256())
    )
    file = folder / "untrusted.pem"
    plain = serialization.NoEncryption()
    file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context
