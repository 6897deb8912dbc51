"""Settings of Kafka clients, and the only functions that create clients: security, and the reason of each default."""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import os
import re
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.producer import sender
from aiokafka.producer.message_accumulator import BatchBuilder, MessageAccumulator
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from ingest.contract.codec import MAX_RECORD_BYTES
from ingest.contract.topics import TOPICS
from ingest.exceptions import ConfigError
from ingest.kafka import fetched
from ingest.runtime.text import decode_text

MAX_REQUEST_BYTES = MAX_RECORD_BYTES + 64 * 1024
"""Largest request, in bytes: one record of the largest size with its headers."""
REQUEST_TIMEOUT_MS = 30_000
"""Time limit of a request. Longer than a broker's restart; a shorter limit would abandon sends that the broker
accepted."""
SESSION_TIMEOUT_MS = 12_000
"""Time without a heartbeat after which the broker removes a member from its group. Pauses of the garbage collector
and scheduler last seconds and must not end a session. A dead node must be replaced quickly."""
HEARTBEAT_INTERVAL_MS = 3_000
"""Pause between group heartbeats: a quarter of the session timeout, so that a member may lose three heartbeats in a
row."""
MAX_POLL_INTERVAL_MS = 120_000
"""Longest pause between two polls. The slowest work between two polls, reading back the end of a partition, takes
seconds: two minutes mean a hang."""
RETRY_BACKOFF_MS = 50
"""Pause between retries of a retriable error, e.g. while a partition changes its leader."""
BETWEEN_TRANSACTIONS_S = 0.003
"""Pause before a transaction is retried while the markers of the previous transaction are still being written.

Three of four consecutive transactions are retried. aiokafka's own pause is 20 ms; this shorter pause reduces the
median transaction from 29 to 11 ms, see decision 0001.
"""
TRANSACTION_BATCH_BYTES = 1024 * 1024
"""Batch size of a transactional producer: all results of a transaction for one partition fit into one request."""
LINGER_MS = 2
"""Time that a producer waits to fill a request. Frames are large, so a longer wait adds latency only."""
FETCH_MAX_WAIT_MS = 100
"""Longest time that the broker delays an empty response to a fetch. The broker responds at once when records
arrive."""

MAX_POLL_RECORDS = 500
"""Largest number of records of one poll: a compressed batch of 16 MiB may hold millions."""

sender.BACKOFF_OVERRIDE = BETWEEN_TRANSACTIONS_S  # aiokafka 0.14 has no setting for it
fetched.install()

CA_FILE, CERT_FILE = "SIGHTLINE_KAFKA_CA_FILE", "SIGHTLINE_KAFKA_CERT_FILE"
USERNAME, PASSWORD_FILE = "SIGHTLINE_KAFKA_USERNAME", "SIGHTLINE_KAFKA_PASSWORD_FILE"

PLAINTEXT_RISK = "anyone on the network can read pictures and change records"
PLAINTEXT_ADVICE = "set SIGHTLINE_KAFKA_SECURITY=SASL_SSL or SSL"

_BROKER = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[^\s:,\[\]/]+)(?::(?P<port>[0-9]{1,5}))?")
_LAST_PORT = 65_535


def _addresses(bootstrap: str) -> str:
    """Return the addresses unchanged. Raise ValueError for an address that a Kafka client would refuse later."""
    for address in bootstrap.split(","):
        found = _BROKER.fullmatch(address.strip())
        if not found or not 0 < int(found["port"] or 1) <= _LAST_PORT:
            raise ValueError("expected HOST[:PORT], separated by commas, IPv6 addresses in brackets")
    return bootstrap


def _is_loopback(address: str) -> bool:
    host = address[1:].partition("]")[0] if address.startswith("[") else address.partition(":")[0]
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class KafkaSettings(BaseModel):
    """Address and security of a cluster. ``prefix`` begins the name of every topic, group and transactional id."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bootstrap: Annotated[str, AfterValidator(_addresses)] = "127.0.0.1:9092"
    prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]*$")] = "sightline."
    security: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    username: str = ""
    password_file: Path | None = None

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> KafkaSettings:
        """Read ``SIGHTLINE_KAFKA`` (the bootstrap address) and ``SIGHTLINE_KAFKA_*``. Raise ConfigError."""
        env = os.environ if env is None else env
        names = {name: f"SIGHTLINE_KAFKA_{name.upper()}" for name in cls.model_fields}
        names["bootstrap"] = "SIGHTLINE_KAFKA"
        try:
            return cls(**{name: env[variable] for name, variable in names.items() if variable in env})
        except ValidationError as error:
            first = error.errors()[0]
            variable = names[str(first["loc"][0])]
            raise ConfigError("environment", variable, env[variable], first["msg"]) from None

    def to_env(self) -> dict[str, str]:
        """Return the variables that ``from_env`` reads, for a child process."""
        values = self.model_dump(exclude_none=True, exclude_defaults=True, mode="json")
        env = {f"SIGHTLINE_KAFKA_{name.upper()}": str(value) for name, value in values.items() if name != "bootstrap"}
        return env | {"SIGHTLINE_KAFKA": self.bootstrap}

    @property
    def plaintext_hosts(self) -> list[str]:
        """The brokers on other machines that are reached without TLS."""
        if "SSL" in self.security.split("_"):
            return []
        return [a.strip() for a in self.bootstrap.split(",") if not _is_loopback(a.strip())]

    def topic(self, name: str) -> str:
        """Return a topic's full name on the broker."""
        return self.prefix + name

    def group(self, name: str) -> str:
        """Return the full name of a consumer group or transactional id."""
        return self.prefix + name

    def ssl_context(self) -> ssl.SSLContext | None:
        """Return the TLS context, None if TLS is off. Certificates are read from files. Raise ConfigError."""
        if "SSL" not in self.security.split("_"):
            return None
        with _readable(CA_FILE, self.ca_file, "a PEM file of certificates"):
            context = ssl.create_default_context(cafile=self.ca_file)
        with _readable(CERT_FILE, self.cert_file, "a PEM certificate, with its key or SIGHTLINE_KAFKA_KEY_FILE"):
            if self.cert_file:
                context.load_cert_chain(self.cert_file, self.key_file)
        return context

    def password(self) -> str:
        """Return the SASL password. The file is read each time, to pick up a rotated password. Raise ConfigError.

        An empty file is an error: the broker may count an empty password as a failed attempt.
        """
        with _readable(PASSWORD_FILE, self.password_file, "a text file with the password"):
            password = decode_text(self.password_file.read_bytes()).strip() if self.password_file else ""
            if not password:
                raise ValueError("the file is empty" if self.password_file else f"{self.security} needs one")
            return password

    def client(self, client_id: str) -> dict[str, Any]:
        """Return the arguments of every aiokafka client. Raise ConfigError for an unusable file."""
        args: dict[str, Any] = {
            "bootstrap_servers": self.bootstrap,
            "client_id": client_id,
            "request_timeout_ms": REQUEST_TIMEOUT_MS,
            "retry_backoff_ms": RETRY_BACKOFF_MS,
            "security_protocol": self.security,
            "ssl_context": self.ssl_context(),
        }
        if self.security.startswith("SASL"):
            password = self.password()
            if not self.username:
                raise ConfigError("environment", USERNAME, "", f"a user name, which {self.security} needs")
            args |= {
                "sasl_mechanism": self.sasl_mechanism,
                "sasl_plain_username": self.username,
                "sasl_plain_password": password,
            }
        return args


@contextlib.contextmanager
def _readable(variable: str, file: Path | None, expected: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise ConfigError("environment", variable, str(file), f"{expected} ({error})") from None


def producer(
    settings: KafkaSettings, client_id: str, *, transactional_id: str | None = None, **overrides: Any
) -> AIOKafkaProducer:
    """Make an idempotent producer that waits for all replicas. Start the producer before use, and stop it afterwards.

    Each topic is compressed as the contract says: topics of JSON and small records are compressed, JPEG and pixels
    are not.
    """
    args: dict[str, Any] = {
        **settings.client(client_id),
        "acks": "all",
        "enable_idempotence": True,
        "transactional_id": transactional_id,
        "max_request_size": MAX_REQUEST_BYTES,
        "linger_ms": LINGER_MS,
    }
    if transactional_id:
        args["max_batch_size"] = TRANSACTION_BATCH_BYTES
    made = AIOKafkaProducer(**{**args, **overrides})
    accumulator = made._message_accumulator
    accumulator._append_batch = functools.partial(_append_compressed, accumulator, settings.prefix)
    return made


def _append_compressed(accumulator: MessageAccumulator, prefix: str, builder: BatchBuilder, tp: Any) -> Any:
    """Append an empty batch with the compression of its topic. aiokafka has one compression for a whole producer."""
    topic = TOPICS.get(tp.topic.removeprefix(prefix))
    codec = topic.compression if topic else None
    accumulator._compression_type = AIOKafkaProducer._COMPRESSORS[codec][1] if codec else 0
    return MessageAccumulator._append_batch(accumulator, accumulator.create_builder(), tp)


def consumer(
    settings: KafkaSettings, client_id: str, *, group: str | None = None, **overrides: Any
) -> AIOKafkaConsumer:
    """Make a consumer that reads committed records only and never commits by itself.

    ``group`` is the name without prefix. Start the consumer before use, and stop it afterwards.
    """
    args: dict[str, Any] = {
        **settings.client(client_id),
        "group_id": settings.group(group) if group else None,
        "enable_auto_commit": False,
        "auto_offset_reset": "earliest",
        "isolation_level": "read_committed",
        "session_timeout_ms": SESSION_TIMEOUT_MS,
        "heartbeat_interval_ms": HEARTBEAT_INTERVAL_MS,
        "max_poll_interval_ms": MAX_POLL_INTERVAL_MS,
        "fetch_max_wait_ms": FETCH_MAX_WAIT_MS,
        "max_partition_fetch_bytes": MAX_REQUEST_BYTES,
        "max_poll_records": MAX_POLL_RECORDS,
        "partition_assignment_strategy": (RoundRobinPartitionAssignor,),
    }
    return AIOKafkaConsumer(**{**args, **overrides})


def admin(settings: KafkaSettings, client_id: str = "sightline-admin") -> AIOKafkaAdminClient:
    """Make an admin client. Start the client before use, and close it afterwards."""
    return AIOKafkaAdminClient(**settings.client(client_id))
